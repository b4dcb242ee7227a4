"""One tiny picture set, one pair of encoders and one fork server for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from training import small
from training.jobs import Server

Unbroken = dict[str, tuple[Path, list[str]]]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``pictures`` and ``encoders``."""
    folder = tmp_path_factory.mktemp("world")
    small.picture_set(folder / "pictures")
    small.encoders(folder / "encoders")
    small.build("emoji-flow", folder)  # so that latents are cached from the first test on
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server") / "log")
    yield server
    server.close()


@pytest.fixture(scope="session")
def unbroken(world: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    """By recipe, a run that was never stopped and the names of its calls; filled when asked for."""
    folder = tmp_path_factory.mktemp("unbroken")

    class Runs(Unbroken):
        def __missing__(self, recipe: str) -> tuple[Path, list[str]]:
            out = folder / recipe
            assert server.run(*small.command(recipe, world, out)) == 0
            self[recipe] = (out, server.calls())
            return self[recipe]

    return Runs()
