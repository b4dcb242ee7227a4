"""Weights in prompts: "a (red:1.3) apple" wants more red than "a red apple", "a [red] apple" less.

The brackets are those of AUTOMATIC1111's web interface, which today's tools share: ``(word:1.3)`` weighs by 1.3,
``(word)`` by 1.1, ``[word]`` by 1/1.1; nested weights multiply; a bracket that is never closed is closed at the end,
one that was never opened is text; ``\\(``, ``\\)``, ``\\[``, ``\\]`` and ``\\\\`` are the signs themselves.

What a weight w does is ComfyUI's rule: the word's vector z goes to e + w (z - e), where e is the vector at its place in
the empty prompt; at 0 the word says nothing, above 1 it says more. The other common rule, the web interface's, scales
z by w and then restores the mean of all numbers of the prompt by a common factor. Our text tower ends in a norm, which
leaves a mean of about a thousandth of the spread: a factor made of two such means is chance. The pooled vector, which
tells the denoiser of the prompt as a whole, is left as it is by both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.encoders.tokenizer import Tokenizer, check_length
from unnoise.errors import UnnoiseError
from unnoise.text import clean

MORE = 1.1  # what a pair of round brackets without a number is worth
HEAVIEST = 10.0
NEAR_COMMA = 20  # tokens behind the last comma of a row, which a cut there moves to the next
Piece = tuple[str, float]
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_SIGNS = re.compile(r"\\[()\[\]\\]|:\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)|[()\[\]]|[^\\()\[\]:]+|[\\:]")


def parse(prompt: str, typed: bool = False) -> list[Piece]:
    """The prompt's pieces without their brackets, each with its weight; pieces of equal weight are joined.

    >>> parse("a (red:1.3) apple ")
    [('a ', 1.0), ('red', 1.3), (' apple', 1.0)]

    Args:
        typed: take all blanks as they were typed, as rules 1 do; else the pieces together are one clean text.

    Raises:
        UnnoiseError: it is no text or too long, or has a weight beyond 10 either way, which draws nothing.
    """
    check_length(checks.text("prompt", prompt))
    pieces: list[Piece] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def close(kind: str, factor: float) -> None:
        start = opened[kind].pop()
        pieces[start:] = [(text, weight * factor) for text, weight in pieces[start:]]

    for match in _SIGNS.finditer(prompt if typed else clean(prompt)):
        sign, number = match[0], match[1]
        if sign in opened:
            opened[sign].append(len(pieces))
        elif number is not None and opened["("]:
            close("(", float(number))
        elif sign == ")" and opened["("]:
            close("(", MORE)
        elif sign == "]" and opened["["]:
            close("[", 1 / MORE)
        else:
            pieces.append((sign[1:] if sign[0] == "\\" and len(sign) > 1 else sign, 1.0))
    for kind, factor in (("(", MORE), ("[", 1 / MORE)):
        while opened[kind]:
            close(kind, factor)
    joined: list[Piece] = []
    for text, weight in pieces if typed else tidied(pieces):
        if not abs(weight) <= HEAVIEST:
            hint = f"stay below {HEAVIEST:g}; \\( and \\) are brackets as text, and --literal takes all of them as text"
            raise UnnoiseError(f"a weight of {weight:g} in the prompt draws nothing", hint)
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text, weight)
        else:
            joined.append((text, weight))
    return joined


def tidied(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces without the blanks that stood beside a bracket, and now stand at an end or beside another blank."""
    result: list[Piece] = []
    before = " "
    for text, weight in pieces:
        text = text[1:] if before == " " and text.startswith(" ") else text
        if text:
            result.append((text, weight))
            before = text[-1]
    if result and before == " ":
        text, weight = result.pop()
        result += [(text[:-1], weight)] if len(text) > 1 else []
    return result


class Reading(NamedTuple):
    """What a tower reads of a prompt.

    Attributes:
        text: the prompt without its brackets.
        ids: (rows * length,) int64, row after row; start, end and padding of each row included.
        weights: (rows * length,) float32, of each id; None where all are 1.
        rows: how many rows they are.
    """

    text: str
    ids: Tensor
    weights: Tensor | None
    rows: int = 1


def read(tokenizer: Tokenizer, prompt: str, weights: bool = True, typed: bool = False, chunks: int = 1) -> Reading:
    """The prompt's ids and their weights, parsed and cut into tokens once.

    Tokens are those of the whole text, so that brackets inside of a word do not cut it. One that lies on both sides of
    a bracket has the mean of its characters' weights; the space before a word is no part of it. Start and ends have 1.

    Args:
        weights: whether brackets weigh words, and ``BREAK`` begins a new row; else both are text.
        typed: take all blanks as they were typed, as rules 1 do.
        chunks: the rows that a prompt may be cut into; with one row, BREAK is a word like any other.

    Raises:
        UnnoiseError: the prompt is longer than the tower reads, or no text, or a weight draws nothing.
    """
    if weights:
        pieces = parse(prompt, typed)
    else:
        pieces = [(prompt if typed else clean(checks.text("prompt", prompt)), 1.0)]
    if chunks == 1:
        return one_row(tokenizer, pieces)
    parts = sections(pieces) if weights else [pieces]
    texts = ["".join(piece for piece, _ in part) for part in parts]
    rows: list[int] = []
    weighed: list[float] = []
    for text, part in zip(texts, parts, strict=True):
        ids, spans = tokenizer.pieces(text)
        own = of_spans(text, part, spans)
        for place in cuts(ids, tokenizer):
            rows += tokenizer.row(ids[place])
            after = tokenizer.length - tokenizer.first - len(ids[place])
            weighed += [*[1.0] * tokenizer.first, *own[place], *[1.0] * after]
    if len(rows) > chunks * tokenizer.length:
        refuse(texts, tokenizer, chunks, len(rows) // tokenizer.length)
    row = torch.tensor(weighed)
    weighed_row = None if bool((row == 1).all()) else row
    return Reading(" ".join(texts), torch.tensor(rows), weighed_row, len(rows) // tokenizer.length)


def one_row(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> Reading:
    """What a tower of one row reads of a prompt's pieces.

    Raises:
        UnnoiseError: the prompt is longer than the row.
    """
    text = "".join(piece for piece, _ in pieces)
    tokens = tokenizer.read(text)
    row = torch.ones(len(tokens.ids))
    if any(weight != 1 for _, weight in pieces):
        own = of_spans(text, pieces, tokens.spans)
        row[tokens.first : tokens.first + len(own)] = torch.tensor(own)
    return Reading(text, tokens.ids, None if bool((row == 1).all()) else row)


def refuse(texts: Sequence[str], tokenizer: Tokenizer, chunks: int, rows: int) -> None:
    """Says how much too long a prompt is."""
    if len(texts) > 1:
        what = f"the prompt takes {rows} rows of {tokenizer.room} tokens, the model reads {chunks}"
        raise UnnoiseError(what, "use fewer words, or fewer BREAKs")
    count, most = tokenizer.count(texts[0]), chunks * tokenizer.room
    raise UnnoiseError(f"the prompt has {count} tokens, the model reads {most}", "use fewer words")


def of_spans(text: str, pieces: Sequence[Piece], spans: Sequence[tuple[int, int]]) -> list[float]:
    """The weight of each token, which stands for the characters of a span of the text that the pieces make."""
    if all(weight == 1 for _, weight in pieces):
        return [1.0] * len(spans)
    each = [weight for piece, weight in pieces for _ in piece]
    means = []
    for start, stop in spans:
        inked = [i for i in range(start, stop) if not text[i].isspace()] or list(range(start, stop))
        own = {each[i] for i in inked}
        means.append(own.pop() if len(own) == 1 else fmean(each[i] for i in inked))
    return means


def sections(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """The pieces between the BREAKs, as AUTOMATIC1111's web interface has them: in upper case, between other words.

    One at the end begins nothing; two in a row, or one at the beginning, leave a row empty.

    >>> sections([("a red apple BREAK ", 1.0), ("blue", 1.3)])
    [[('a red apple', 1.0)], [('blue', 1.3)]]
    """
    parts: list[list[Piece]] = [[]]
    for text, weight in pieces:
        first, *others = _BREAK.split(text)
        parts[-1] += [(first, weight)] if first else []
        parts += [[(other, weight)] if other else [] for other in others]
    return parts[:-1] if len(parts) > 1 and not parts[-1] else parts


def cuts(ids: Sequence[int], tokenizer: Tokenizer) -> list[slice]:
    """Where a long prompt is cut into rows: each as full as can be, or up to its last comma if few tokens follow that.

    As AUTOMATIC1111's web interface does it, by whose rule a prompt makes the same rows there.
    """
    if len(ids) <= tokenizer.room:
        return [slice(0, len(ids))]
    comma = tokenizer.ids(",")
    places, begin, last = [], 0, -1  # the last comma of the row
    for place, each in enumerate(ids):
        full = place - begin == tokenizer.room
        if full and [each] != comma and last >= 0 and place - last <= NEAR_COMMA:
            places.append(slice(begin, last + 1))
            begin, last = last + 1, -1
        elif full:
            places.append(slice(begin, place))
            begin, last = place, -1
        elif [each] == comma:
            last = place
    return [*places, slice(begin, len(ids))]


@torch.inference_mode()
def encode(
    tower: nn.Module,
    tokenizer: Tokenizer,
    readings: Sequence[Reading],
    device: torch.device | str,
    layer: int | None = None,
) -> Condition:
    """The condition of prompts, one row each; where all weights are 1 it is that of the plain prompts.

    A prompt of several rows has the tokens of all of them, one after the other, and the pooled vector of the first.
    Beside it shorter prompts are padded, and what is padded is masked.

    Args:
        layer: whose output is taken, of a tower that can choose; None for its own.
    """
    if len({len(each.ids) for each in readings}) > 1:
        return Condition.cat([encode(tower, tokenizer, [each], device, layer) for each in readings])
    how = {} if layer is None else {"layer": layer}
    chunks = readings[0].rows
    ids = torch.cat([each.ids for each in readings]).reshape(len(readings) * chunks, -1)  # (B * chunks, L)
    cond: Condition = tower(ids.to(device), **how)
    if cond.tokens is not None and any(each.weights is not None for each in readings):
        rows = [torch.ones(len(each.ids)) if each.weights is None else each.weights for each in readings]
        weights = torch.cat(rows).reshape(*ids.shape, 1).to(device)  # (B * chunks, L, 1)
        empty = tower(tokenizer([""]).to(device), **how).tokens  # (1, L, D)
        moved = empty + weights.to(empty.dtype) * (cond.tokens - empty)  # (B * chunks, L, D)
        cond = replace(cond, tokens=torch.where(weights == 1, cond.tokens, moved))
    return cond if chunks == 1 else joined(cond, chunks)


def joined(cond: Condition, chunks: int) -> Condition:
    """One row of a condition for so many rows of it: all tokens, and the pooled vector of the first."""

    def whole(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.reshape(-1, chunks * value.shape[1], *value.shape[2:])

    pooled = None if cond.pooled is None else cond.pooled[::chunks]
    return Condition(tokens=whole(cond.tokens), token_mask=whole(cond.token_mask), pooled=pooled)
