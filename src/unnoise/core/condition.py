"""What steers a network toward a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def _joined_by(rule: str, mask: str = "", exact: bool = False) -> dict[str, Any]:
    """The metadata of a field: how ``Condition.cat`` joins its rows, and whether it is ever rounded.

    Args:
        rule: "stack": every condition has it, in one shape. "zeros": rows that lack it get zeros. "pad": every
            condition has it, with (B, L, D) vectors of which the shorter rows are padded with zeros. "mask": joined
            along with the field that it masks.
        mask: the (B, L) bool field that is False where a row is padded; made where there is none.
        exact: whether ``Condition.to`` leaves its dtype: a number such as 1024 is none that bfloat16 may round.
    """
    return {"join": rule, "mask": mask, "exact": exact}


@dataclass(frozen=True)
class Condition:
    """A frozen record of what steers a network; a network reads the fields that it knows. B rows each.

    Attributes:
        tokens: (B, L, D) encoded prompt, one vector a token.
        token_mask: (B, L) bool, True where a token is real; all are where there is none.
        pooled: (B, D) encoded prompt, one vector a prompt.
        class_id: (B,) int64.
        concat: (B, C', ...) channels that are joined to the state; zeros where a row has none, which is how Brooks et
            al. 2022 (arXiv 2211.09800, section 3.2.1) train without a picture.
        numbers: (B, K) float32, what a network was told of its pictures in training: Stable Diffusion XL's height and
            width, crop and target size in pixels (Podell et al. 2023, arXiv 2307.01952, section 2.2), in the order of
            the model's layout. Never rounded.
        scale: (B,) float32, the guidance scale that a distilled network is to draw as if with, counted as CFG counts
            it: 1 is none. Never rounded.
        other_tokens: (B, M, D) another encoded prompt, which edits such as NAG's look at; networks do not.
        other_mask: (B, M) bool, as ``token_mask``.
    """

    tokens: Tensor | None = field(default=None, metadata=_joined_by("pad", mask="token_mask"))
    token_mask: Tensor | None = field(default=None, metadata=_joined_by("mask"))
    pooled: Tensor | None = field(default=None, metadata=_joined_by("stack"))
    class_id: Tensor | None = field(default=None, metadata=_joined_by("stack"))
    concat: Tensor | None = field(default=None, metadata=_joined_by("zeros"))
    numbers: Tensor | None = field(default=None, metadata=_joined_by("stack", exact=True))
    scale: Tensor | None = field(default=None, metadata=_joined_by("stack", exact=True))
    other_tokens: Tensor | None = field(default=None, metadata=_joined_by("pad", mask="other_mask"))
    other_mask: Tensor | None = field(default=None, metadata=_joined_by("mask"))

    def _map(self, change: object) -> Condition:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: change(v) for k, v in values.items() if v is not None})  # type: ignore[operator]

    @property
    def count(self) -> int:
        """The number of rows; 0 where it has no field."""
        return next((len(v) for v in (getattr(self, f.name) for f in fields(self)) if v is not None), 0)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Condition:
        """The same condition elsewhere; only floating-point fields that may be rounded change their dtype."""
        moved: dict[str, Tensor] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None:
                rounded = value.is_floating_point() and not each.metadata["exact"]
                moved[each.name] = value.to(device=device, dtype=dtype if rounded else None)
        return Condition(**moved)

    def rows(self, index: Tensor | slice) -> Condition:
        """A part of the batch."""
        return self._map(lambda value: value[index])

    def repeat(self, count: int) -> Condition:
        """One row, `count` times over."""
        return self._map(lambda value: value.expand(count, *value.shape[1:]))

    def where(self, keep: Tensor, other: Condition) -> Condition:
        """This condition in the rows where ``keep`` (B,) bool is true, ``other``'s elsewhere; fields as here.

        Raises:
            ValueError: the two do not have the same fields.
        """
        joined: dict[str, Tensor] = {}
        for each in fields(self):
            a, b = getattr(self, each.name), getattr(other, each.name)
            if (a is None) != (b is None):
                raise ValueError(f"conditions differ: only one has {each.name}")
            if a is not None:
                joined[each.name] = torch.where(keep.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        return Condition(**joined)

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """Rows of several conditions, in order; each field is joined by the rule that it declares.

        Prompts of different lengths are padded to the longest, and what is padded is masked. Where all lengths agree
        nothing is padded, and a mask is made only for those that lack one beside others that have one.

        Raises:
            ValueError: only some have a field that all must have, or one of another shape.
        """
        joined: dict[str, Tensor] = {}
        for each in fields(Condition):
            join, mask = each.metadata["join"], each.metadata["mask"]
            values = [getattr(c, each.name) for c in conditions]
            if join == "mask" or all(value is None for value in values):
                continue
            if join == "zeros":
                values = _with_zeros(values, conditions)
            if any(value is None for value in values):
                raise ValueError(f"conditions differ: only some have {each.name}")
            shapes = {tuple(value.shape[2 if join == "pad" else 1 :]) for value in values}
            if len(shapes) > 1:
                raise ValueError(f"conditions differ: {each.name} of {' and '.join(map(str, sorted(shapes)))} a row")
            if mask:
                values, masks = _padded(values, [getattr(c, mask) for c in conditions])
                if masks is not None:
                    joined[mask] = torch.cat(masks)
            joined[each.name] = torch.cat(values)
        return Condition(**joined)


def _padded(values: Sequence[Tensor], masks: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor] | None]:
    """(B, L, D) values of one length, and their (B, L) masks; no masks where none is needed."""
    longest = max(value.shape[1] for value in values)
    if all(mask is None for mask in masks) and all(value.shape[1] == longest for value in values):
        return list(values), None
    padded, padded_masks = [], []
    for value, mask in zip(values, masks, strict=True):
        own = torch.ones(value.shape[:2], dtype=torch.bool, device=value.device) if mask is None else mask
        missing = longest - value.shape[1]
        padded.append(F.pad(value, (0, 0, 0, missing)) if missing else value)  # behind the last token
        padded_masks.append(F.pad(own, (0, missing)) if missing else own)
    return padded, padded_masks


def _with_zeros(values: Sequence[Tensor | None], conditions: Sequence[Condition]) -> list[Tensor]:
    """The values, and zeros for the rows of conditions that have none."""
    if any(c.count == 0 for c in conditions):
        raise ValueError("a condition with no field has no number of rows, and cannot join others")
    like = next(value for value in values if value is not None)
    return [
        like.new_zeros(c.count, *like.shape[1:]) if value is None else value
        for value, c in zip(values, conditions, strict=True)
    ]
