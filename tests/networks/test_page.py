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
    with torch.device("meta"):  # shapes alone: nothing is computed
        module = find(kind, name)()
    assert f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f}" == millions
    picture = torch.zeros(1, 3, 128, 128, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if kind == "autoencoders":
            module.decode(module.encode(picture).mean)
        elif kind == "networks":
            x, label, cond = call(module, 1)
            module(x.to("meta"), label.to("meta"), cond.to("meta"))
        else:
            row = torch.zeros(1, 32, dtype=torch.int64, device="meta")
            vector = torch.zeros(1, 256, device="meta")
            module(*{"clip-text": (row,), "image-conv": (picture,), "pair": (vector, vector)}[name])
    counts = counter.get_flop_counts().get("Global", {})
    done = sum(count for op, count in counts.items() if op is not torch.ops.aten.bmm) / 1e9  # attention's own products
    assert f"{done:.2f}" == gflop
    assert kind != "networks" or float(gflop) <= 3, "a processor draws a picture in seconds"


def test_all_networks_are_told() -> None:
    assert len(ROWS) >= 7
