"""One build of the whole set for all tests here. They need the font and fail without it."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from unnoise.data.emoji import build_emoji
from unnoise.data.render import code_points
from unnoise.data.store import PictureSet, open_set


def few(sequence: str) -> bool:
    """Keeps about 150 sequences: fruit, and the man, the woman and the person who fight fires."""
    code = code_points(sequence)
    return code.startswith("1f34") or "1f692" in code


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent  # of all processes of one run
    with (shared / "emoji.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "emoji").exists():
            build_emoji(shared / "emoji")
    return shared / "emoji"


@pytest.fixture(scope="session")
def emoji_set(folder: Path) -> PictureSet:
    return open_set(folder)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A set of its own of a few pictures, to be damaged."""
    build_emoji(tmp_path / "small", only=few)
    return tmp_path / "small"
