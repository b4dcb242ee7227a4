"""The smallest example: short, quick, and right."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "minimal.py"


@pytest.fixture(scope="module")
def minimal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("minimal", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def distance(points: Tensor) -> Tensor:
    """(B,) from the nearer of the two half circles."""

    def arc(p: Tensor) -> Tensor:
        ends = torch.minimum((p - torch.tensor([1.0, 0.0])).norm(dim=1), (p + torch.tensor([1.0, 0.0])).norm(dim=1))
        return torch.where(p[:, 1] > 0, (p.norm(dim=1) - 1).abs(), ends)

    centre = torch.tensor([0.5, 0.25])
    return torch.minimum(arc(points + centre), arc(centre - points))


def sliced_wasserstein(a: Tensor, b: Tensor) -> float:
    """Mean over 64 directions of the distance between the sorted shadows of two sets of as many points."""
    angles = torch.arange(64) / 64 * math.pi
    axes = torch.stack([angles.cos(), angles.sin()])
    return float(((a @ axes).sort(0).values - (b @ axes).sort(0).values).abs().mean())


def test_it_is_short_and_needs_no_registry() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert "registry" not in text
    assert "find(" not in text


@pytest.mark.slow
def test_it_draws_what_it_was_shown(minimal: ModuleType) -> None:
    """Samples lie on the moons and fill them; noise, and the network before training, do not."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begin = time.process_time()
    try:
        points = minimal.draw(minimal.train())
    finally:
        torch.set_num_threads(threads)
    assert time.process_time() - begin < 15
    fresh = minimal.moons(1000)
    assert float((distance(points) > 0.2).float().mean()) < 0.06
    assert float(distance(points).mean()) < 0.07
    assert sliced_wasserstein(points, fresh) < 0.1
    assert float((distance(minimal.draw(minimal.train(steps=1))) > 0.2).float().mean()) > 0.3, "the measure can fail"
    assert sliced_wasserstein(points.roll(1, 1), fresh) > 0.1


@pytest.mark.slow
def test_it_draws_a_picture(tmp_path: Path) -> None:
    target = tmp_path / "moons.png"
    subprocess.run(
        [sys.executable, str(EXAMPLE), str(target)], check=True, timeout=120, env={**os.environ, "MPLBACKEND": "Agg"}
    )
    assert target.read_bytes().startswith(b"\x89PNG")
