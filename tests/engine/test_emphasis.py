"""Weights in prompts: the brackets of today's tools, and vectors that move from the empty prompt's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drawing import draw
from tiny import tokenizer
from unnoise.encoders.tokenizer import MAX_CHARACTERS
from unnoise.engine.emphasis import parse, read
from unnoise.engine.engine import Engine
from unnoise.engine.request import RULES
from unnoise.errors import UnnoiseError
from unnoise.text import clean

# the first seven are the examples of the web interface's own parser
PARSED = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0),
        ("house", 1.573),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641),
        (".", 1.1),
    ],
    "a [dull] sky": [("a ", 1.0), ("dull", 1 / 1.1), (" sky", 1.0)],
    "never opened) or ]": [("never opened) or ]", 1.0)],
    "keycap: 3": [("keycap: 3", 1.0)],
    "(time: 3)": [("time", 3.0)],
    "(a:b)": [("a:b", 1.1)],
    r"back\slash and \\": [("back\\slash and \\", 1.0)],
    "(red:-.5)": [("red", -0.5)],
    "": [],
}


def plain(prompt: str, typed: bool = False) -> str:
    """The prompt without its weights."""
    return "".join(text for text, _ in parse(prompt, typed))


@pytest.mark.parametrize("prompt", PARSED)
def test_brackets_are_read_as_todays_tools_read_them(prompt: str) -> None:
    found, wanted = parse(prompt), PARSED[prompt]
    assert [text for text, _ in found] == [text for text, _ in wanted]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in wanted])


@pytest.mark.parametrize("prompt", ["(a:11)", "(a:-10.5)", "(" * 30 + "a", "(a:" + "9" * 400 + ")"])
def test_weights_that_draw_nothing_are_refused(prompt: str) -> None:
    with pytest.raises(UnnoiseError, match="in the prompt draws nothing"):
        parse(prompt)


@given(st.text("ab ()[]\\:1.", max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_text_can_be_escaped(text: str) -> None:
    escaped = "".join(f"\\{sign}" if sign in "()[]\\" else sign for sign in text)
    assert plain(escaped) == clean(text)
    assert plain(escaped, typed=True) == text
    assert {weight for _, weight in parse(escaped)} <= {1.0}


def test_a_weight_of_one_changes_no_bit(engine: Engine) -> None:
    bare = engine.model.encode(["red apple"])
    for prompt in ("(red:1) apple", "(red:1.0) (apple:1)", "([red apple])", "red apple"):
        cond = engine.model.encode([prompt], weights=True)
        assert torch.equal(cond.tokens, bare.tokens), prompt  # type: ignore[arg-type]
        assert torch.equal(cond.pooled, bare.pooled)  # type: ignore[arg-type]
    one = draw(engine, ["red apple"], [1])
    assert torch.equal(draw(engine, ["(red:1) apple"], [1], weights=True), one)
    assert not torch.equal(draw(engine, ["(red:1.5) apple"], [1], weights=True), one)


def test_words_move_on_the_line_from_the_empty_prompt(engine: Engine) -> None:
    """In float64 by hand: the tokens of the word alone, twice, half, none and the other way."""
    bare, empty = engine.model.encode(["red apple"]).tokens[0], engine.model.encode([""]).tokens[0]  # type: ignore[index]
    spans = tokenizer().spans("red apple")
    own = torch.tensor([False, *(stop <= 3 for _, stop in spans)] + [False] * (len(bare) - 1 - len(spans)))
    assert 0 < own.sum() < len(spans)
    for weight in (2.0, 0.5, 0.0, -1.0):
        cond = engine.model.encode([f"(red:{weight}) apple"], weights=True)
        wanted = torch.where(own[:, None], (1 - weight) * empty.double() + weight * bare.double(), bare.double())
        torch.testing.assert_close(cond.tokens[0].double(), wanted, rtol=0, atol=1e-5)  # type: ignore[index]
        assert torch.equal(cond.tokens[0][~own], bare[~own]), "no other word moves"  # type: ignore[index]
        assert torch.equal(cond.pooled, engine.model.encode(["red apple"]).pooled)  # type: ignore[arg-type]


def test_rows_of_a_batch_have_weights_of_their_own(engine: Engine) -> None:
    rows = engine.model.encode(["(red:2) apple", "red apple", "blue [heart]"], weights=True)
    for number, prompt in enumerate(["(red:2) apple", "red apple", "blue [heart]"]):
        alone = engine.model.encode([prompt], weights=True)
        torch.testing.assert_close(rows.tokens[number], alone.tokens[0], rtol=0, atol=1e-5)  # type: ignore[index]


def test_tokens_are_those_of_the_whole_text() -> None:
    """Brackets inside of a word cut no token; one on both sides has the mean; a space belongs to no word."""
    words = tokenizer()
    prompt, text = "a (re:3)d apple", "a red apple"
    reading = read(words, prompt)
    assert reading.weights is not None
    assert torch.equal(reading.ids, words([text])[0])
    spans, weights = words.spans(text), reading.weights.tolist()
    assert len(weights) == words.length
    for (start, stop), weight in zip(spans, weights[1:], strict=False):
        inked = [i for i in range(start, stop) if text[i] != " "]
        assert weight == pytest.approx(sum(3 if i in (2, 3) else 1 for i in inked) / len(inked))
    assert weights[0] == 1
    assert set(weights[1 + len(spans) :]) == {1.0}
    assert any(1 < weight < 3 for weight in weights), "the tokenizer knows 'red' as one: the control of this test"


def test_spans_are_characters_of_the_prompt() -> None:
    words = tokenizer()
    for text in ("red apple", "Äpfel 🍎", "a👨‍👩‍👧b"):
        spans = words.spans(text)
        assert len(spans) == words.count(text)
        assert {i for start, stop in spans for i in range(start, stop)} == set(range(len(text)))


def test_brackets_are_text_where_weights_are_off(engine: Engine, tiny_model: Path) -> None:
    literal = engine.model.encode(["(red) apple"])
    assert not torch.equal(literal.tokens, engine.model.encode(["red apple"]).tokens)  # type: ignore[arg-type]
    escaped = engine.model.encode([r"\(red\) apple"], weights=True)
    assert torch.equal(literal.tokens, escaped.tokens)  # type: ignore[arg-type]
    weighed, told = engine.generate("(red) apple"), engine.generate("(red) apple", weights=False)
    assert weighed[0].tobytes() != told[0].tobytes()
    assert engine.generate("red apple")[0].tobytes() == engine.generate("(red:1) apple")[0].tobytes()


def test_brackets_are_no_part_of_a_prompt_s_length(engine: Engine) -> None:
    long = " ".join(["apple"] * 13)
    assert engine.model.tower.tokenizer.count(long) <= 30
    engine.model.encode([" ".join(["(apple:1.05)"] * 13)], weights=True)
    with pytest.raises(UnnoiseError, match="tokens, the model reads 30"):
        engine.model.encode(["(apple) " * 99], weights=True)


# blanks, and texts that are too long


@pytest.mark.parametrize(
    "prompt",
    ["(red) apple ", " ( red ) apple", "(red ) apple", "(red)( ) apple", "[] (red)  [ ] apple[ ]", "(red)\napple"],
)
def test_blanks_beside_brackets_are_those_of_a_clean_text(prompt: str) -> None:
    assert plain(prompt) == "red apple"
    assert plain(prompt, typed=True) != "red apple" or prompt == "(red) apple"


def test_rules_1_read_a_prompt_as_it_was_typed(engine: Engine) -> None:
    for weights in (False, True):
        new, old = (engine.model.encode(["red apple ", "red apple"], weights, rules) for rules in (RULES, 1))
        assert torch.equal(new.pooled[0], new.pooled[1])  # type: ignore[index]
        assert torch.equal(old.pooled[1], new.pooled[1])  # type: ignore[index]
        assert not torch.equal(old.pooled[0], old.pooled[1])  # type: ignore[index]


def test_a_prompt_of_brackets_alone_is_refused_before_it_is_read() -> None:
    """What is closed goes over all that it holds: in the square of the length, which is therefore bounded."""
    with pytest.raises(UnnoiseError, match="the prompt has 100000 characters"):
        parse("(" * 50_000 + ")" * 50_000)
    deep = MAX_CHARACTERS // 3
    assert len(parse("[a" * deep + "]" * deep)) > 900
