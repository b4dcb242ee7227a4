"""Parts of a model as records and back: names of the registry and plain settings, nothing that is code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from unnoise.core import registry
from unnoise.core.denoiser import NOISE_LABELS, Denoiser
from unnoise.core.notation import make, write
from unnoise.core.packages import check_installed
from unnoise.core.path import Path
from unnoise.errors import UnnoiseError
from unnoise.weights.config import from_json, to_json
from unnoise.weights.record import MODEL

KINDS = ("networks", "encoders", "autoencoders")  # of the registry, that a part can be of


def describe(module: nn.Module) -> dict[str, Any]:
    """A part as JSON: its kind, name and config; of a denoiser also path and prediction, with settings, and the label;
    and the other packages that it is made with, if any.

    Raises:
        UnnoiseError: its path or prediction cannot be written; see ``core.notation.write``.
    """
    if isinstance(module, Denoiser):
        return {
            **describe(module.network),
            **_packages(module.network, module.path, module.prediction),
            "path": write(module.path),
            "prediction": write(module.prediction),
            "noise_label": module.noise_label,
        }
    return {"kind": module.kind, "name": module.name, "config": to_json(module.config), **_packages(module)}


def _packages(*things: object) -> dict[str, list[str]]:
    """The packages that these are of, and the paths that paths among them are made of."""
    inner = [each for thing in things if isinstance(thing, Path) for each in vars(thing).values()]
    names = {registry.package_of(type(thing)) for thing in (*things, *inner)} - {""}
    return {"packages": sorted(names)} if names else {}


class Budget(TorchFunctionMode):
    """Ends the building of a network that needs far more tensors than there are weights for: a file's
    config is believed only as far as its weights bear it out."""

    def __init__(self, tensors: int) -> None:
        super().__init__()
        self.calls_left = 1000 + 30 * tensors  # a layer makes about ten calls for each of its tensors

    def __torch_function__(self, call: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise ValueError("it wants more than its weights hold")
        if getattr(call, "__module__", "") == "torch.nn.init":  # first numbers are not needed here, and cost a second:
            return None  # on the meta device torch would import its compiler to draw them
        return call(*args, **(kwargs or {}))


def build(part: str, entry: Any, tensors: int = 10_000) -> nn.Module:
    """The part that an entry of a record describes, on the meta device: shapes alone, for so many tensors.

    An entry with a path is a denoiser's.

    Raises:
        UnnoiseError: it names something that does not exist, or a package that is not installed, or makes no sense.
    """
    try:
        check_installed(entry.get("packages", []))
        if entry["kind"] not in KINDS:
            raise ValueError(f"a part is one of {', '.join(KINDS)}, not {str(entry['kind'])[:40]!r}")
        cls = registry.find(entry["kind"], str(entry["name"]))
        config = from_json(cls.Config, entry["config"], f"{MODEL}: {part}")
        with Budget(tensors), torch.device("meta"):
            module: nn.Module = cls(config)
        if "path" not in entry:
            return module
        if entry["kind"] != "networks":
            raise ValueError(f"{entry['kind']} have no path")
        if entry["noise_label"] not in NOISE_LABELS:
            raise UnnoiseError(f"{MODEL} names the unknown noise label {entry['noise_label']!r}", "update unnoise")
        path, prediction = make("paths", str(entry["path"])), make("predictions", str(entry["prediction"]))
        return Denoiser(module, path, prediction, str(entry["noise_label"]))
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UnnoiseError(f"{MODEL} does not describe a {part} ({error})", "the model is damaged") from None
