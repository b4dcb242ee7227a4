"""unnoise: pictures from noise, whole and in the open.

>>> import unnoise
>>> engine = unnoise.load()                                  # doctest: +SKIP
>>> pictures = engine.generate("red apple", count=4)         # doctest: +SKIP
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike
    from typing import SupportsIndex

    import torch

    from unnoise.engine.engine import Engine

try:
    __version__ = version("unnoise")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+source"

__all__ = ["__version__", "load"]


def load(
    model: PathLike[str] | str | None = None,
    device: torch.device | str = "auto",
    dtype: torch.dtype | str = "auto",
    threads: SupportsIndex | None = None,
    compiled: bool = False,
) -> Engine:
    """An engine that draws pictures: of the default model, or of a model folder or a finished training's folder.

    Args:
        model: the folder; None for the model that comes with the package.
        device: "cpu", "cuda", a torch.device, or "auto".
        dtype: "float32", "bfloat16", a torch.dtype, or "auto", which is what the device computes fastest.
        threads: processor threads for the whole process, 1 to 1024; None leaves them as they are.
        compiled: compile the network for this machine, half a minute for each size of a batch: for many pictures.

    Raises:
        UnnoiseError: an argument that is none of these; there is no model, or it is damaged; the device or a compiler
            is not there.
    """
    from unnoise.engine.load import load_engine

    return load_engine(model, device, dtype, threads, compiled)
