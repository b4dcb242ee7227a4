"""One tiny model for all tests that need a whole one."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tiny import save
from unnoise.engine.engine import Engine
from unnoise.engine.load import load_engine

os.environ["UNNOISE_HOME"] = tempfile.mkdtemp(prefix="unnoise-home-")  # not the user's list of models
atexit.register(shutil.rmtree, os.environ["UNNOISE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; read only."""
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def engine(tiny_model: Path) -> Engine:
    return load_engine(tiny_model, "cpu")
