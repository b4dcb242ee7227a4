"""What a family of published models is: how it is recognised, its parts, and the meaning of its numbers.

A family is one file of this folder with a ``FAMILY``. From its pieces and their key tables follow both loading and
saving, in each layout.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from types import ModuleType
from typing import Any

DENOISER = "denoiser"


@dataclass(frozen=True)
class Piece:
    """A part of a family, and where others keep it.

    Attributes:
        kind, name: what builds it, in the registry.
        tables: the module of ``weights.names`` with its key tables, which is ``names``.
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
    tables: str
    folder: str
    prefixes: tuple[tuple[str, str], ...]
    signature: Mapping[str, str]
    library: tuple[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    hints: Mapping[str, Any] = field(default_factory=dict)
    cut: int = 0

    @cached_property
    def names(self) -> ModuleType:
        """The module with its key tables, read when it is first wanted: to recognise a family does without."""
        return importlib.import_module(f"unnoise.weights.names.{self.tables}")

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
        marks_v: whether its single files mark by empty tensors that they predict v, as ComfyUI reads and writes them.
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
    marks_v: bool = False
    index: Mapping[str, Any] = field(default_factory=dict)

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
    members = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    return {family.name: family for family in members}


def recognised(
    width: int | None, added: int, names: Iterable[str] = (), pipeline: str = "", linear: bool = False
) -> Family | None:
    """The family of a denoiser, by the evidence in this order: its widths, names of parts that one family alone has in
    its single files, the class of its pipeline, the width of its prompts alone. None where nothing tells.

    Args:
        width: of the prompt's vectors; None where it is not known.
        added: width of the vector that its level's embedding takes besides; 0 for none.
        names: of all tensors of a single file.
        pipeline: the class of diffusers; "" where there is none.
        linear: whether the projections around its transformers are linear layers.
    """
    every = list(families().values())
    if exact := next((each for each in every if (width, added) == (each.width, each.added)), None):
        return exact
    marks = {mark: each for each in every for mark in each.marks}
    beginnings = tuple(marks)
    if found := next((name for name in names if name.startswith(beginnings)), None):
        return next(each for mark, each in marks.items() if found.startswith(mark))
    fitting = [each for each in every if pipeline in each.pipelines]
    alike = [each for each in fitting if (each.prediction is None) == linear]  # of one pipeline: SD 2 is linear, 1 not
    fitting = alike if len(fitting) > 1 else fitting
    return next(iter(fitting or [each for each in every if each.width == width]), None)
