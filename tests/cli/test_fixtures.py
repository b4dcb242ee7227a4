"""The pictures of tests/fixtures, drawn by earlier versions, replay: to the bit on the processor that drew them.

Those of single solvers and guidances are in the long tests; one of each other kind is replayed here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unnoise.cli.replay import again, check_sources, compare
from unnoise.engine.engine import Engine
from unnoise.engine.load import load_engine
from unnoise.engine.metadata import read_pictures

FOLDER = Path(__file__).parent.parent / "fixtures"
sys.path.append(str(FOLDER.parent.parent / "tools"))

from draw_fixtures import processor  # noqa: E402

ABOUT = json.loads((FOLDER / "fixtures.json").read_text())


@pytest.fixture(scope="module")
def default() -> Iterator[Engine]:
    before = torch.get_num_threads()
    yield load_engine(None, "cpu", "float32", threads=1)
    torch.set_num_threads(before)


def given(name: str, which: str) -> Path | None:
    return FOLDER / "given" / ABOUT["pictures"][name][which] if which in ABOUT["pictures"][name] else None


def test_there_are_sixty_and_each_has_its_record() -> None:
    assert len(ABOUT["pictures"]) >= 60
    assert {path.name for path in FOLDER.glob("*.png")} == {*ABOUT["pictures"]}


def cases() -> Iterator[object]:
    for name in ABOUT["pictures"]:
        yield pytest.param(name, marks=pytest.mark.slow if name.startswith(("solver-", "guidance-")) else ())


@pytest.mark.parametrize("name", list(cases()))
def test_it_replays(name: str, default: Engine) -> None:
    start, mask = given(name, "start"), given(name, "mask")
    for old, record in read_pictures(FOLDER / name):
        check_sources(FOLDER / name, record, start, mask)
        verdict, apart = compare(old, again(default, record, start, mask))
        allowed = ("equal",) if processor() == ABOUT["processor"] else ("equal", "close")
        assert verdict in allowed, f"{verdict}: {apart}"


def test_another_seed_does_not(default: Engine) -> None:
    ((old, record),) = read_pictures(FOLDER / "strict-1.png")
    other = record._replace(request=replace(record.request, seed=record.request.seed + 1))
    assert compare(old, again(default, other, None, None))[0] == "different"
