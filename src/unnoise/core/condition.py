"""What a picture is asked to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """A frozen record of what steers a network; a network reads the fields that it knows. B rows each.

    Attributes:
        tokens: (B, L, D) encoded prompt, one vector a token.
        token_mask: (B, L) bool, True where a token is real.
        pooled: (B, D) encoded prompt, one vector a prompt.
        class_id: (B,) int64.
        concat: (B, C', ...) channels that are joined to the state.
    """

    tokens: Tensor | None = None
    token_mask: Tensor | None = None
    pooled: Tensor | None = None
    class_id: Tensor | None = None
    concat: Tensor | None = None

    def _map(self, change: object) -> Condition:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: change(v) for k, v in values.items() if v is not None})  # type: ignore[operator]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Condition:
        """The same condition elsewhere; only floating-point fields change their dtype."""

        def change(value: Tensor) -> Tensor:
            return value.to(device=device, dtype=dtype if value.is_floating_point() else None)

        return self._map(change)

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
        for field in fields(self):
            a, b = getattr(self, field.name), getattr(other, field.name)
            if (a is None) != (b is None):
                raise ValueError(f"conditions differ: only one has {field.name}")
            if a is not None:
                joined[field.name] = torch.where(keep.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        return Condition(**joined)

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """Rows of several conditions, in order.

        Raises:
            ValueError: they do not have the same fields.
        """
        first = conditions[0]
        joined: dict[str, Tensor] = {}
        for field in fields(first):
            values = [getattr(each, field.name) for each in conditions]
            if all(value is None for value in values):
                continue
            if any(value is None for value in values):
                raise ValueError(f"conditions differ: only some have {field.name}")
            joined[field.name] = torch.cat(values)
        return Condition(**joined)
