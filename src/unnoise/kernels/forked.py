"""A process that was forked has none of the threads that its parent computed with."""

from __future__ import annotations

import os

import torch

from unnoise.errors import UnnoiseError

_computed_in: int | None = None  # the process that last computed with several threads, or on a GPU


def check_threads(device: torch.device) -> None:
    """Sees, before something is computed, that this process has the threads for it.

    OpenMP, which torch computes with, keeps its threads from one call to the next. A fork copies what it knows of them
    and not the threads, so that the copy would wait for them without an end; with a single thread there are none to
    wait for. Memory of a GPU does not outlive a fork either.

    Raises:
        UnnoiseError: the process was forked from one that has computed with several threads, or on a GPU.
    """
    global _computed_in
    if torch.get_num_threads() == 1 and device.type == "cpu":
        return
    if _computed_in not in (None, os.getpid()):
        raise UnnoiseError(
            "this process was forked from one that had loaded a model, and lacks the threads to compute with",
            "start it by multiprocessing's spawn; without a GPU torch.set_num_threads(1) in it will do too",
        )
    _computed_in = os.getpid()
