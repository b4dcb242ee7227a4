"""k-diffusion's samplers without the rest of that package, whose imports want torchvision and much else.

``sampling`` is its module ``k_diffusion.sampling``, loaded from the installed file with a stand-in for its ``utils``,
of which the samplers use one function.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import distribution
from types import ModuleType
from typing import Any

from torch import Tensor


def append_dims(x: Tensor, target_dims: int) -> Tensor:
    """As in k_diffusion.utils: axes of size 1 are added behind until there are ``target_dims``."""
    return x[(...,) + (None,) * (target_dims - x.ndim)]


def _load() -> Any:
    package = ModuleType("k_diffusion")
    package.__path__ = [str(distribution("k-diffusion").locate_file("k_diffusion"))]
    utils = ModuleType("k_diffusion.utils")
    utils.append_dims = append_dims  # type: ignore[attr-defined]
    package.utils = utils  # type: ignore[attr-defined]
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    return importlib.import_module("k_diffusion.sampling")


sampling = _load()
