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
Piece = tuple[str, float]
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
        ids: (length,) int64, start, end and padding included.
        weights: (length,) float32, of each id; None where all are 1.
    """

    text: str
    ids: Tensor
    weights: Tensor | None


def read(tokenizer: Tokenizer, prompt: str, weights: bool = True, typed: bool = False) -> Reading:
    """The prompt's ids and their weights, parsed and cut into tokens once.

    Tokens are those of the whole text, so that brackets inside of a word do not cut it. One that lies on both sides of
    a bracket has the mean of its characters' weights; the space before a word is no part of it. Start and ends have 1.

    Args:
        weights: whether brackets weigh words; else they are text.
        typed: take all blanks as they were typed, as rules 1 do.

    Raises:
        UnnoiseError: the prompt is longer than the tower reads, or no text, or a weight draws nothing.
    """
    if not weights:
        text = prompt if typed else clean(checks.text("prompt", prompt))
        return Reading(text, tokenizer.read(text).ids, None)
    pieces = parse(prompt, typed)
    text = "".join(piece for piece, _ in pieces)
    tokens = tokenizer.read(text)
    if all(weight == 1 for _, weight in pieces):
        return Reading(text, tokens.ids, None)
    each = [weight for piece, weight in pieces for _ in piece]
    row = torch.ones(len(tokens.ids))
    for place, (start, stop) in enumerate(tokens.spans, tokens.first):
        inked = [i for i in range(start, stop) if not text[i].isspace()] or list(range(start, stop))
        own = {each[i] for i in inked}
        row[place] = own.pop() if len(own) == 1 else fmean(each[i] for i in inked)
    return Reading(text, tokens.ids, None if bool((row == 1).all()) else row)


@torch.inference_mode()
def encode(
    tower: nn.Module, tokenizer: Tokenizer, readings: Sequence[Reading], device: torch.device | str
) -> Condition:
    """The condition of prompts, one row each; where all weights are 1 it is that of the plain prompts."""
    cond: Condition = tower(torch.stack([each.ids for each in readings]).to(device))
    if cond.tokens is None or all(each.weights is None for each in readings):
        return cond
    rows = [torch.ones(len(each.ids)) if each.weights is None else each.weights for each in readings]
    weights = torch.stack(rows)[:, :, None].to(device)  # (B, L, 1)
    empty = tower(tokenizer([""]).to(device)).tokens  # (1, L, D)
    moved = empty + weights.to(empty.dtype) * (cond.tokens - empty)  # (B, L, D)
    return replace(cond, tokens=torch.where(weights == 1, cond.tokens, moved))
