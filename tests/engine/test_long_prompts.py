"""Prompts of many rows, BREAK, clip skip, and what published networks are told beside the prompt."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import tiny
from drawing import draw, record
from unnoise.cli.main import main
from unnoise.core.condition import Condition
from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.encoders.vocabulary import clip_json
from unnoise.engine.conditioner import Conditioner, Layout, Tower
from unnoise.engine.emphasis import cuts, read, sections
from unnoise.engine.engine import Engine
from unnoise.engine.metadata import infotext
from unnoise.engine.model import Model
from unnoise.engine.readers.infotext import read as read_infotext
from unnoise.engine.readers.like import like
from unnoise.errors import UnnoiseError
from unnoise.weights.model import save_model

ROWS = 3
LONG = "a red apple on a table, " * 20  # 140 tokens, two rows
NUMBERS = ("height", "width", "top", "left", "target-height", "target-width")


@cache
def clip(pad: int | None = None) -> Tokenizer:
    return Tokenizer(clip_json(), 77, pad)


@cache
def tower(seed: int = 1, width: int = 32, **changes: Any) -> CLIPText:
    torch.manual_seed(seed)
    shape = {"depth": 3, "heads": 2, "hidden": 48, "end": 49407, "masked": False, "chunks": ROWS} | changes
    return tiny.lively(CLIPText(CLIPTextConfig(49408, 77, width, **shape)))


def model(layout: Layout | None = None, **towers: CLIPText) -> Model:
    """The tiny model with CLIP's vocabulary and towers of 32 numbers a token together."""
    parts = {name: part for name, part in tiny.components().items() if name != "text"}
    named: dict[str, nn.Module] = {f"text.{name}": each for name, each in (towers or {"clip-l": tower()}).items()}
    return Model(
        parts | named, dict.fromkeys(named, clip()), {"name": "tiny", "defaults": tiny.DEFAULTS}, layout=layout
    )


# rows


def web_ui(ids: Sequence[int], room: int, comma: int, back: int = 20) -> list[list[int]]:
    """How AUTOMATIC1111's web interface fills its chunks, as its ``tokenize_line`` does it, written anew."""
    chunks: list[list[int]] = []
    chunk: list[int] = []
    last = -1
    for token in ids:
        if token == comma:
            last = len(chunk)
        elif len(chunk) == room and last != -1 and len(chunk) - last <= back:
            moved = chunk[last + 1 :]
            chunks.append(chunk[: last + 1])
            chunk, last = moved, -1
        if len(chunk) == room:
            chunks.append(chunk)
            chunk, last = [], -1
        chunk.append(token)
    return [*chunks, chunk]


def test_long_prompts_are_cut_as_the_web_interface_cuts_them() -> None:
    chance, comma = random.Random(4), clip().ids(",")[0]
    whole = at_commas = 0
    for number in range(400):
        rare = 4 if number % 2 else 40
        ids = [comma if chance.randrange(rare) == 0 else chance.randrange(1000, 2000) for _ in range(number)]
        found = [ids[place] for place in cuts(ids, clip())]
        assert found == web_ui(ids, 75, comma)
        whole += sum(len(row) == 75 for row in found)
        at_commas += sum(len(row) < 75 and row[-1:] == [comma] for row in found)
    assert min(whole, at_commas) > 100, "both ways to end a row come up"


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("a cat BREAK a dog", ["a cat", "a dog"]),
        ("a cat BREAK", ["a cat"]),
        ("BREAK a cat", ["", "a cat"]),
        ("a BREAK BREAK b", ["a", "", "b"]),
        ("a, BREAK, b", ["a,", ", b"]),
        ("break a BREAKFAST BREAK_ b", ["break a BREAKFAST BREAK_ b"]),
        ("(a BREAK b:1.3) c", ["a", "b c"]),
        ("a [b] BREAK (c)", ["a b", "c"]),
        ("BREAK", [""]),
        ("", [""]),
    ],
)
def test_break_begins_a_row(prompt: str, texts: list[str]) -> None:
    reading = read(clip(), prompt, chunks=ROWS)
    assert reading.ids.tolist() == [each for text in texts for each in clip()([text])[0].tolist()]


def test_weights_go_with_their_words_into_their_row() -> None:
    reading = read(clip(), "a (red:1.5) apple BREAK blue [sky]", chunks=ROWS)
    assert reading.weights is not None
    rows = reading.weights.reshape(2, 77)
    assert rows[0, :5].tolist() == [1, 1, 1.5, 1, 1]
    assert rows[1, :4].tolist() == pytest.approx([1, 1, 1 / 1.1, 1])
    assert set(rows[:, 5:].flatten().tolist()) == {1.0}
    assert sections([("a ", 1.0), ("b BREAK c", 2.0)]) == [[("a ", 1.0), ("b", 2.0)], [("c", 2.0)]]


def test_break_is_a_word_where_brackets_are_text_and_of_a_tower_of_one_row() -> None:
    word = clip()(["a BREAK b"])[0]
    assert torch.equal(read(clip(), "a BREAK b", weights=False, chunks=ROWS).ids, word)
    assert torch.equal(read(clip(), "a BREAK b").ids, word)
    assert not torch.equal(read(clip(), "a BREAK b", chunks=ROWS).ids[:77], word)


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(UnnoiseError, match="the prompt has 230 tokens, the model reads 225"):
        read(clip(), "apple " * 230, chunks=ROWS)
    with pytest.raises(UnnoiseError, match="takes 4 rows of 75 tokens, the model reads 3"):
        read(clip(), "a BREAK b BREAK c BREAK d", chunks=ROWS)
    with pytest.raises(UnnoiseError, match="the prompt has 76 tokens, the model reads 75"):
        read(clip(), "apple " * 76)
    assert len(read(clip(), "apple " * 225, chunks=ROWS).ids) == ROWS * 77


# vectors


def tokens_of(cond: Condition) -> Tensor:
    assert cond.tokens is not None
    return cond.tokens


@pytest.mark.parametrize("weighed", [False, True])
def test_each_row_is_read_by_itself(weighed: bool) -> None:
    """Its words are weighed from the empty row's vectors; the pooled vector is the first row's, unweighed."""
    words = Conditioner({"a": Tower(tower(), clip())})
    prompt = "red apple BREAK (blue:1.8) sky" if weighed else "red apple BREAK blue sky"
    found = words([prompt], weights=True)
    first, second, empty = (tower()(clip()([text])) for text in ("red apple", "blue sky", ""))
    assert found.token_mask is None
    assert tokens_of(found).shape == (1, 154, 32)
    moved = tokens_of(second).clone()
    if weighed:
        moved[:, 1] = tokens_of(empty)[:, 1] + 1.8 * (moved[:, 1] - tokens_of(empty)[:, 1])
    assert torch.allclose(tokens_of(found), torch.cat([tokens_of(first), moved], 1), atol=1e-5)
    assert torch.allclose(found.pooled, first.pooled, atol=1e-5)
    assert not torch.allclose(found.pooled, second.pooled, atol=1e-2), "the control"


def test_prompts_of_unlike_lengths_are_masked_beside_one_another() -> None:
    words = Conditioner({"a": Tower(tower(), clip())})
    both = words([LONG, "red apple"])
    assert both.token_mask is not None
    assert both.token_mask.sum(1).tolist() == [154, 77]
    for row, prompt in enumerate((LONG, "red apple")):
        alone = words([prompt])
        length = tokens_of(alone).shape[1]
        assert torch.allclose(tokens_of(both)[row, :length], tokens_of(alone)[0], atol=1e-5)
        assert torch.allclose(both.pooled[row], alone.pooled[0], atol=1e-5)  # type: ignore[index]
    assert words(["red apple", "blue"]).token_mask is None


def test_a_prompt_and_a_negative_one_of_unlike_lengths_draw_as_each_does_alone() -> None:
    """Guided, and beside other pictures: as the calls made one by one."""
    engine = Engine(model())
    for prompt, negative in ((LONG, "blue"), ("red apple", LONG)):
        c, u = (draw(engine, [each], [3], steps=1, guidance="plain") for each in (prompt, negative))
        guided = draw(engine, [prompt], [3], negative, steps=1, cfg_scale=1.5)
        latents = latents_line(engine, prompt, negative)
        assert torch.allclose(guided, latents, atol=1e-4)
        assert not torch.allclose(c, u, atol=1e-3), "the control"
    pair = draw(engine, [LONG, "red apple"], [1, 2], "blue")
    alone = torch.cat([draw(engine, [prompt], [seed], "blue") for prompt, seed in ((LONG, 1), ("red apple", 2))])
    assert torch.allclose(pair, alone, atol=1e-4)
    assert not torch.allclose(alone[:1], draw(engine, ["a red apple on a table"], [1], "blue"), atol=1e-3)


def latents_line(engine: Engine, prompt: str, negative: str) -> Tensor:
    """The picture of one step at scale 1.5 from two calls that are made apart."""
    from drawing import latents_of

    c, u = (latents_of(engine, [each], [3], steps=1, guidance="plain") for each in (prompt, negative))
    with torch.inference_mode():
        return engine.model.pixels(u + 1.5 * (c - u)).float()


# clip skip


def test_clip_skip_is_the_layer_from_the_end() -> None:
    whole = model()
    for layer in (1, 2, 3):
        wanted = tower()(clip()(["red apple"]), layer=layer)
        assert torch.allclose(tokens_of(whole.encode(["red apple"], clip_skip=layer)), wanted.tokens, atol=1e-5)
    assert torch.equal(tokens_of(whole.encode(["a"])), tokens_of(whole.encode(["a"], clip_skip=1)))
    weighed = whole.encode(["(red:1.5) apple"], weights=True, clip_skip=2)
    empty, bare = (tower()(clip()([text]), layer=2).tokens for text in ("", "red apple"))
    assert torch.allclose(tokens_of(weighed)[0, 1], empty[0, 1] + 1.5 * (bare[0, 1] - empty[0, 1]), atol=1e-5)
    engine = Engine(whole)
    one, two = (draw(engine, ["red apple"], [1], clip_skip=layer) for layer in (1, 2))
    assert torch.equal(one, draw(engine, ["red apple"], [1]))
    assert not torch.allclose(one, two, atol=1e-3)


def test_a_layer_that_is_not_there_is_refused_by_name() -> None:
    engine = Engine(model())
    with pytest.raises(UnnoiseError, match=r"clip_skip: the text tower has no layer 4"):
        engine.generate("red apple", clip_skip=4)
    for wrong in (0, -1, 101, 1.5, "2", True):
        with pytest.raises(UnnoiseError, match="clip_skip"):
            engine.request("red apple", clip_skip=wrong)
    short = Engine(model(**{"clip-l": tower(depth=2, cut=1, layer=2)}))
    with pytest.raises(UnnoiseError, match="no layer 1, counted from its end"):
        short.generate("red apple", clip_skip=1)


def test_clip_skip_is_recorded_and_other_programs_read_it(tiny_model: Path, tmp_path: Path) -> None:
    engine = Engine(model())
    own = record(engine, clip_skip=2)
    assert own.to_json()["clip_skip"] == 2
    assert "clip_skip" not in record(engine).to_json()
    assert own.from_json(own.to_json(), "it").request.clip_skip == 2
    lines = infotext(own, (64, 64))
    assert "Clip skip: 2, " in lines
    assert "Clip skip" not in infotext(record(engine), (64, 64))
    reading = read_infotext({"parameters": lines})
    assert reading is not None
    assert reading.clip_skip == 2
    assert like(reading).settings["clip_skip"] == 2
    assert "Clip skip" not in reading.left_out
    strange = read_infotext({"parameters": lines.replace("Clip skip: 2", "Clip skip: -7")})
    assert strange is not None
    assert (strange.clip_skip, strange.left_out["Clip skip"]) == (None, "-7")


@pytest.mark.slow
def test_clip_skip_is_an_option_an_axis_and_part_of_a_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = model().parts
    folder, out = tmp_path / "model", tmp_path / "out"
    info = {"name": "tiny", "defaults": tiny.DEFAULTS}
    save_model(folder, parts, info, {"text.clip-l.tokenizer.json": clip().json}, torch.float32)
    call = ["generate", "red apple", "--seed", "1", "--model", str(folder), "--device", "cpu", "--out", str(out)]
    assert main([*call, "--clip-skip", "2"]) == 0
    assert main([*call, "--grid", "clip-skip=1,2"]) == 0
    for name in ("red-apple-1", "red-apple-1-grid"):
        assert main(["replay", str(out / f"{name}.png"), "--model", str(folder)]) == 0
    assert "equal" in capsys.readouterr().out
    assert main([*call, "--like", str(out / "red-apple-1.png")]) == 0
    with Image.open(out / "red-apple-1-2.png") as image:
        assert json.loads(image.text["unnoise"])["clip_skip"] == 2  # type: ignore[attr-defined]
    assert main([*call, "--clip-skip", "9"]) == 1
    assert "clip_skip: the text tower has no layer 9" in capsys.readouterr().err


# what is told beside the prompt


def test_sizes_are_told_in_the_order_of_the_layout() -> None:
    xl = model(Layout((("text.a", "text.b"),), ("text.b",), NUMBERS), a=tower(1, 20), b=tower(2, 12, projection=24))
    cond = xl.encode(["red apple", "blue"], size=(96, 160))
    assert cond.numbers is not None
    assert cond.numbers.tolist() == [[160, 96, 0, 0, 160, 96]] * 2
    assert tokens_of(cond).shape == (2, 77, 32)
    assert cond.token_mask is None
    assert cond.pooled is not None
    assert cond.pooled.shape == (2, 24)
    refiner = model(Layout((("text.b",),), ("text.b",), ("height", "width", "top", "left", "aesthetic")), b=tower())
    wanted, unwanted = (refiner.encode([""], size=(96, 160), negative=each).numbers for each in (False, True))
    assert (wanted.tolist(), unwanted.tolist()) == ([[160, 96, 0, 0, 6]], [[160, 96, 0, 0, 2.5]])  # type: ignore[union-attr]
    with pytest.raises(UnnoiseError, match="no number is called 'depth'"):
        model(Layout((("text.b",),), (), ("depth",)), b=tower())
    with pytest.raises(UnnoiseError, match="no empty prompt is called 'nothing'"):
        model(Layout((("text.b",),), (), (), "nothing"), b=tower())  # type: ignore[arg-type]


def test_an_empty_negative_prompt_is_zeros_where_the_layout_has_it_so() -> None:
    layout = Layout((("text.a", "text.b"),), ("text.b",), NUMBERS, "zeros")
    xl = model(layout, a=tower(1, 20), b=tower(2, 12))
    empty = xl.encode(["", "blue", " "], negative=True)
    assert not tokens_of(empty)[[0, 2]].any()
    assert not empty.pooled[[0, 2]].any()  # type: ignore[index]
    assert torch.equal(tokens_of(empty)[1], tokens_of(xl.encode(["", "blue", ""]))[1])
    assert tokens_of(xl.encode([""])).any(), "an empty prompt is read"
    encoded = model(replace(layout, empty="encoded"), a=tower(1, 20), b=tower(2, 12)).encode([""], negative=True)
    assert torch.equal(tokens_of(encoded), tokens_of(xl.encode([""])))


def test_the_network_is_told_of_its_own_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call has the numbers of the request's own size, and of the negative prompt those of what is not wanted."""
    layout = Layout((("text.b",),), ("text.b",), ("height", "width", "aesthetic"), "zeros")
    whole = model(layout, b=tower())
    seen: list[Condition] = []
    network = whole.denoiser.network
    own = network.forward

    def watched(x: Tensor, label: Tensor, cond: Condition, *rest: Any, **more: Any) -> Any:
        seen.append(cond)
        return own(x, label, cond, *rest, **more)

    monkeypatch.setattr(network, "forward", watched)
    engine = Engine(whole)
    draw(engine, ["red apple"], [1], steps=1, size=(64, 96), cfg_scale=2)
    ((wanted, unwanted),) = [cond.numbers.tolist() for cond in seen if cond.numbers is not None]
    assert (wanted, unwanted) == ([96, 64, 6], [96, 64, 2.5])
    assert seen[0].tokens is not None
    assert seen[0].tokens[0].any()
    assert not seen[0].tokens[1].any()
