"""What inspection finds out about a file or a folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from unnoise.weights.header import Header

if TYPE_CHECKING:
    from unnoise.inspection.published import Published

JSON, MAX_NAMES = "JSON", 12


class Answer(NamedTuple):
    """What a file or folder is.

    Attributes:
        what: in a few words: "an adapter (LoRA) for Stable Diffusion 1".
        format: how it is packed: "safetensors", "GGUF", "JSON", "a folder".
        facts: more of it, {what: plain value}, in reading order.
        note: what a person must know before using it; "" if nothing.
        fault: what is wrong with it, where it is damaged, no such file, or would run code; "" if nothing was found.
        mend: how to mend the fault, an imperative.
        header: its tensors, where it has any.
        model: more of it, where it is a published model of a family that this program draws with.
    """

    what: str
    format: str
    facts: Mapping[str, Any] = {}
    note: str = ""
    fault: str = ""
    mend: str = ""
    header: Header | None = None
    model: Published | None = None


def names(values: Any, limit: int = MAX_NAMES) -> str:
    """Some names, with commas, and how many more there are."""
    values = [str(value)[:80] for value in values]
    return ", ".join(values[:limit]) + (f" and {len(values) - limit:,} more" if len(values) > limit else "")
