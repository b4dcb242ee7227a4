"""What a family of published models is: how it is recognised, its parts, and the meaning of its numbers.

A family is one file of this folder with a ``FAMILY``. From its pieces and their key tables follow both loading and
saving, in each layout.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

from unnoise.weights.shapes import Shapes

DENOISER = "denoiser"


@dataclass(frozen=True)
class Piece:
    """A part of a family, and where others keep it.

    Attributes:
        kind, name: what builds it, in the registry.
        names: the module of ``weights.names`` with its key tables.
        folder: of a pipeline in diffusers' layout.
        prefixes: (what its names begin with in a single file, layout of the names behind that), today's spelling first,
            which is the one that is written.
        signature: {layout: a name that every file with this part has}.
        library: the class that diffusers or transformers have for it, as ``model_index.json`` names it.
        settings: of its config, that files do not tell or tell for another purpose.
        hints: for configs that are read off shapes alone, such as the width of a head.
        cut: blocks at a tower's end that diffusers' folders leave out.
    """

    kind: str
    name: str
    names: ModuleType
    folder: str
    prefixes: tuple[tuple[str, str], ...]
    signature: Mapping[str, str]
    library: tuple[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    hints: Mapping[str, Any] = field(default_factory=dict)
    cut: int = 0

    @property
    def layout(self) -> str:
        """The layout of names in a folder of diffusers."""
        return "transformers" if self.library[0] == "transformers" else "diffusers"


@dataclass(frozen=True)
class Family:
    """A family of published models that share networks and calibration.

    Attributes:
        name: as ``--family`` takes it.
        title: for people.
        pieces: {part: piece}, as our models call the parts.
        width: of the prompt's vectors that the denoiser attends to, by which it is known.
        added: width of the vector that its level's embedding takes besides; 0 for none.
        marks: beginnings of names that only this family's single files have.
        pipelines: the classes of diffusers for it.
        path: of training, in the notation of ``core.notation``.
        prediction: the usual one; None where only a trial of the network can tell.
        layout: how text towers make one condition, as ``engine.conditioner.Layout``.
        size: (pixels along one axis for each prediction, "" for any other), of training.
        defaults: the published settings of drawing.
        index: what a ``model_index.json`` of it says besides its parts.
        alike: what no tensor tells from it, and how that is drawn, for people.
    """

    name: str
    title: str
    pieces: Mapping[str, Piece]
    width: int
    added: int
    marks: tuple[str, ...]
    pipelines: tuple[str, ...]
    layout: Mapping[str, Any]
    size: Mapping[str, int]
    defaults: Mapping[str, Any]
    path: str = "scaled-linear"
    prediction: str | None = "noise"
    alike: str = ""
    index: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, config: Any) -> bool:
        """Whether a denoiser of that config is of this family."""
        return (config.text_width, config.added_width) == (self.width, self.added)

    def marked(self, shapes: Shapes, matches: Callable[[str], bool] = lambda name: True) -> bool:
        """Whether a single file has the marks of this family."""
        return any(name.startswith(self.marks) for name in shapes if matches(name))

    @property
    def towers(self) -> list[str]:
        """The names of its text towers."""
        return [part for part in self.pieces if part.startswith("text")]


@cache
def families() -> dict[str, Family]:
    """All families by name: one a file of this folder."""
    package = importlib.import_module(__package__ or "unnoise.weights.families")
    names = sorted(each.name for each in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    found = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    return {family.name: family for family in found}
