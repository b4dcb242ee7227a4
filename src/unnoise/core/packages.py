"""What other installed packages offer: the entry points in their metadata. None of their code is imported.

An entry point of the group ``unnoise.solvers``, ``name = "package.module:Class"``, offers a solver; the other groups
are called after the other kinds. Only the metadata of an installed distribution offers anything: a name in a model or
a picture is looked up here, and does nothing more.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from unnoise.errors import UnnoiseError

PREFIX = "unnoise."
_TARGET = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_MOST = 16  # packages that one part of a model may want


class Offer(NamedTuple):
    """One entry point.

    Attributes:
        kind: of method, by the group: "solvers".
        name: that the method is to be found by.
        target: where it is, "package.module:Class", as the metadata has it.
        package: the name of the distribution.
    """

    kind: str
    name: str
    target: str
    package: str

    @property
    def place(self) -> tuple[str, str]:
        """(module, attribute).

        Raises:
            ValueError: the target names none.
        """
        match = _TARGET.fullmatch(self.target)
        if match is None:
            raise ValueError(f"its entry point {self.target!r} is not of the form package.module:Class")
        return match[1], match[2]


@cache
def offers() -> tuple[Offer, ...]:
    """Every entry point of unnoise's groups; of two distributions with one name the first on the path counts."""
    packages: dict[str, list[Offer]] = {}
    for distribution in distributions():
        try:
            if own := _offers(distribution):
                packages.setdefault(_plain(own[0].package), own)
        except Exception:  # damaged metadata is of that package's own concern
            continue
    return tuple(sorted(offer for each in packages.values() for offer in each))


def _offers(distribution: Distribution) -> list[Offer]:
    if PREFIX not in (distribution.read_text("entry_points.txt") or ""):  # most; their names are long to read
        return []
    name = str(distribution.metadata["Name"])
    groups = (point for point in distribution.entry_points if point.group.startswith(PREFIX))
    return [Offer(point.group.removeprefix(PREFIX), point.name, point.value.strip(), name) for point in groups]


def source_of(module: str) -> FilePath | None:
    """The source file of a module, which is found and not imported; None where there is none."""
    names, path = module.split("."), None
    for place in range(1, len(names) + 1):
        name = ".".join(names[:place])
        finders = (finder for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((spec for finder in finders if (spec := finder.find_spec(name, path)) is not None), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and place < len(names):
            return None
    file = FilePath(spec.origin) if spec is not None and spec.origin else None
    return file if file is not None and file.suffix == ".py" and file.is_file() else None


def check_installed(names: Any) -> None:
    """Ensures that the packages are installed that a part of a model is made with.

    Args:
        names: of distributions, as a model's record has them.

    Raises:
        UnnoiseError: one is not installed; it is named, and not fetched.
        ValueError: these are no names.
    """
    if not isinstance(names, list) or len(names) > _MOST:
        raise ValueError("its packages are no list of names")
    for name in names:
        if not isinstance(name, str) or not _PACKAGE.fullmatch(name):
            raise ValueError("its packages are no names")
        if _plain(name) not in _installed():
            raise UnnoiseError(
                f"the model is made with the package {name}, which is not installed", "install it, if you trust it"
            )


def _installed() -> Collection[str]:
    return {_plain(offer.package) for offer in offers()}


def _plain(name: str) -> str:
    """The name of a distribution in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
