"""A network compiled for the machine that it runs on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unnoise.errors import UnnoiseError

CACHE = "TORCHINDUCTOR_CACHE_DIR"
KINDS = 32  # of calls that are compiled; torch stops at 8, which two networks with self-conditioning pass


def check_compiler(device: torch.device | str = "cpu") -> None:
    """Ensures that networks can be compiled here, by compiling one line.

    Raises:
        UnnoiseError: they cannot, mostly since there is no working C++ compiler.
    """
    if CACHE not in os.environ:  # torch's own default lies where all users may write
        with suppress(RuntimeError):  # users without a home
            home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            os.environ[CACHE] = str(home / "unnoise" / "compiled")
    try:
        torch.compile(_line)(torch.zeros(64, device=device))
    except Exception as error:  # of many kinds, by what is missing
        raise UnnoiseError(
            f"networks cannot be compiled here ({str(error).strip().partition(chr(10))[0]})",
            "install a C++ compiler and Python's headers (apt-get install g++ python3-dev), or leave --compile out "
            "(--run.no-compile for a training that began with it)",
        ) from None


class Compiled:
    """What stands in the place of a network's ``forward``: compiled code, where calls are alike.

    Whoever calls ``network(...)`` gets the hooks of the network (sharding and offloading live in them) in any case,
    since torch runs them around ``forward``. Calls with ``edits`` or ``read`` run the code as it was written:
    the changes would be compiled into the network, anew for each call.
    """

    def __init__(self, network: nn.Module) -> None:
        self.plain: Callable[..., Any] = network.forward
        self.fast: Callable[..., Any] = torch.compile(self.plain, dynamic=False)

    def __call__(self, *args: Any, edits: tuple[Any, ...] = (), read: tuple[str, ...] = (), **more: Any) -> Any:
        """The network's own ``forward``."""
        if edits or read:
            return self.plain(*args, edits=edits, read=read, **more)
        return self.fast(*args, **more)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """The plain ``forward`` of the copied network: copies are not compiled."""
        copied = memo[id(self.plain.__self__)]  # type: ignore[attr-defined]
        return type(copied).forward.__get__(copied)


def compile_network(network: nn.Module) -> None:
    """Compiles a network in place, by ``torch.compile``: what follows a product of matrices or a convolution is then
    computed in one pass over memory in place of several.

    Calls ``network(...)`` run compiled, those with ``edits`` or ``read`` as they did before; hooks of the network run
    around both. Copies are not compiled. Each kind of call, by the shapes of its arguments and whether gradients are
    wanted, is compiled when it first comes. That takes half a minute or more, and about ten seconds where an earlier
    process has left its code in ``$TORCHINDUCTOR_CACHE_DIR``, by default a folder of the user's own. After 32 kinds, of
    all networks of a class, others run as they would without. Results differ by rounding.

    Args:
        network: its weights may change between calls.

    Raises:
        UnnoiseError: networks cannot be compiled here.
    """
    check_compiler(next((parameter.device for parameter in network.parameters()), torch.device("cpu")))
    torch._dynamo.config.recompile_limit = max(KINDS, torch._dynamo.config.recompile_limit)
    if not is_compiled(network):
        network.forward = Compiled(network)


def is_compiled(network: nn.Module) -> bool:
    """Whether calls of it run compiled."""
    return isinstance(network.forward, Compiled)


def eagerly(networks: Iterable[nn.Module]) -> AbstractContextManager[object]:
    """Within, the calls of these networks run as they would without having been compiled."""
    return torch.compiler.set_stance("force_eager") if any(map(is_compiled, networks)) else nullcontext()


def _line(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
