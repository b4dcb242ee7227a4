"""The studies, one a file: the file's name is the study's name, the first line of its docstring the summary.

Each has a function ``study(lab) -> Lesson``. To add a study, add a file.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path

from unnoise.errors import UnnoiseError
from unnoise.study.lab import Lab
from unnoise.study.page import Lesson


def studies() -> dict[str, str]:
    """{name: summary}, read from the source text."""
    files = sorted(file for file in Path(__file__).parent.glob("*.py") if file.stem != "__init__")
    docstrings = {file.stem.replace("_", "-"): ast.get_docstring(ast.parse(file.read_text("utf-8"))) for file in files}
    return {name: (text or "").split("\n")[0] for name, text in docstrings.items()}


def find(name: str) -> Callable[[Lab], Lesson]:
    """The study of that name.

    Raises:
        UnnoiseError: there is none.
    """
    names = studies()
    if name not in names:
        raise UnnoiseError(f"no study is called {name!r}", f"one of: {', '.join(names)}")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    study: Callable[[Lab], Lesson] = module.study
    return study
