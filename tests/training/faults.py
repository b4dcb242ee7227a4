"""Where a training can be stopped or made to fail: each call that computes or writes, counted."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch

from unnoise.data.feeds import CaptionFeed, CropFeed, LatentFeed
from unnoise.training.averages import PowerAverage
from unnoise.training.optimiser import Optimiser

COMPUTES = [
    (CropFeed, "batch"),
    (CaptionFeed, "batch"),
    (LatentFeed, "batch"),
    (Optimiser, "step"),
    (PowerAverage, "update"),
]
WRITES = [
    (os, "mkdir"),
    (os, "fsync"),
    (os, "rename"),
    (os, "replace"),
    (Path, "open"),
    (Path, "write_bytes"),
    (safetensors.torch, "save_file"),
]
Act = Callable[[str], None]
Patch = Callable[[Any, str, Any], None]


def watch(act: Act, patch: Patch = setattr, computes: bool = True) -> None:
    """Calls ``act`` with a name before each such call, and once more when half of a file is written."""
    for owner, name in [*(COMPUTES if computes else []), *WRITES]:
        patch(owner, name, _watched(act, getattr(owner, name), name))


def _watched(act: Act, original: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if name == "open":
            mode = str(kwargs.get("mode", args[1] if len(args) > 1 else "r"))
            if not set(mode) & set("wa+"):
                return original(*args, **kwargs)
        act(name)
        if name == "write_bytes":
            path, data = args
            with open(path, "wb") as file:
                file.write(data[: len(data) // 2])
            act(f"half {name}")
        if name == "save_file":
            path = Path(args[1])
            original(*args, **kwargs)
            os.truncate(path, path.stat().st_size // 2)
            act(f"half {name}")
            path.unlink()
        return original(*args, **kwargs)

    return watched
