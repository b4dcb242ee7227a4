"""A copy of the tiny model for each test that damages one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from weights.hostile import Hostile


@pytest.fixture
def hostile(tiny_model: Path, tmp_path: Path) -> Hostile:
    return Hostile(Path(shutil.copytree(tiny_model, tmp_path / "model")))
