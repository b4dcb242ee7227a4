"""Libraries that only some of the work needs. Drawing does without them; whoever touches one gets it here."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from unnoise.errors import UnnoiseError

LIBRARIES = {  # library: (extra of pyproject.toml that brings it, what it is for)
    "pyarrow": ("train", "picture sets and Parquet files"),
    "emoji": ("train", "the names of emoji"),
    "tensorboard": ("train", "the curves of a training"),
    "huggingface_hub": ("hub", "models fetched from a Hugging Face hub"),
}


def load(module: str) -> ModuleType:
    """The module, which belongs to one of ``LIBRARIES``.

    Raises:
        UnnoiseError: the library is missing or cannot be imported; the line says which extra to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module.partition(".")[0], error) from None


def require(*libraries: str) -> None:
    """Ensures that libraries are installed before work begins that needs them at its end; imports nothing.

    Raises:
        UnnoiseError: one is missing.
    """
    for library in libraries:
        try:
            there = importlib.util.find_spec(library) is not None
        except ImportError:
            there = False
        if not there:
            raise _missing(library, None)


def _missing(library: str, error: ImportError | None) -> UnnoiseError:
    extra, use = LIBRARIES[library]
    absent = error is None or getattr(error, "name", None) == library
    why = "which is not installed" if absent else f"which cannot be imported ({error})"
    return UnnoiseError(f"{use} need {library}, {why}", f'pip install "unnoise[{extra}]"')
