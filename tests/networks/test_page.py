"""The table of docs/networks.md is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from networks.test_networks import call
from unnoise.core.registry import find

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "networks.md"
ROW = r"^\| [^|]+ \| `(.+?)` \| `(.+?)/.+?` \| ([\d.]+) M \| ([\d.]+) \|$"
ROWS = re.findall(ROW, PAGE.read_text("utf-8"), flags=re.M)


@pytest.mark.parametrize(("name", "kind", "millions", "gflop"), ROWS)
def test_sizes_are_as_told(name: str, kind: str, millions: str, gflop: str) -> None:
    module = find(kind, name)()
    assert f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f}" == millions
    picture = torch.zeros(1, 3, 128, 128)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if kind == "autoencoders":
            module.decode(module.encode(picture).mean)
        elif kind == "networks":
            module(*call(module, 1))
        else:
            row = torch.zeros(1, 32, dtype=torch.int64)
            module(*{"clip-text": (row,), "image-conv": (picture,), "pair": (torch.zeros(1, 256),) * 2}[name])
    assert f"{counter.get_total_flops() / 1e9:.2f}" == gflop


def test_all_networks_are_told() -> None:
    assert len(ROWS) == 7
