"""A network compiled for the machine that it runs on."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from unnoise.errors import UnnoiseError

CACHE = "TORCHINDUCTOR_CACHE_DIR"


def compile_network(network: nn.Module) -> None:
    """Compiles a network in place, by ``torch.compile``: what follows a product of matrices or a convolution is then
    computed in one pass over memory in place of several.

    Calls ``network(...)`` run compiled; ``network.forward(...)`` and copies of the network do not. Each shape of the
    arguments is compiled for itself when it first comes. That takes about a minute, and a few seconds where an earlier
    process has left its code in ``$TORCHINDUCTOR_CACHE_DIR``, by default a folder of the user's own. After eight shapes
    others run as they would without. Results differ by rounding.

    Args:
        network: its weights may change between calls.

    Raises:
        UnnoiseError: nothing can be compiled here, since there is no working C++ compiler.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unnoise" / "compiled"
    os.environ.setdefault(CACHE, str(cache))  # torch's own default lies where all users may write
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    try:
        torch.compile(_probe)(torch.zeros(64, device=device))
    except Exception as error:  # of many kinds, by what is missing
        reason = str(error).strip().partition("\n")[0]
        raise UnnoiseError(
            f"networks cannot be compiled here ({reason})",
            "install a C++ compiler such as g++, or do not compile",
        ) from None
    network.compile(dynamic=False)


def is_compiled(network: nn.Module) -> bool:
    """Whether calls of it run compiled."""
    return network._compiled_call_impl is not None


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
