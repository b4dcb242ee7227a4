"""How far a picture of a batch is from the same picture drawn alone, with the default model and every solver.

    python bench/seeds.py

Prints the largest difference, of 255, and the lowest PSNR: of the default solver at every place of batches of 2, 3, 7
and 16, and of each solver, with six steps, at the third place of four. With ``--strict`` all of them are equal.
"""

from __future__ import annotations

import math
import time
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from unnoise.core.registry import index
from unnoise.engine.load import load_engine


def apart(one: Tensor, other: Tensor) -> tuple[int, float]:
    """(largest difference, PSNR in dB) of two uint8 pictures."""
    gap = (one.int() - other.int()).abs()
    error = float(gap.double().square().mean())
    return int(gap.max()), 10 * math.log10(255**2 / error) if error else math.inf


def main(dtype: Literal["float32", "bfloat16"] = "float32", prompt: str = "cat face", steps: int = 30) -> None:
    """Measure it.

    Args:
        dtype: precision of the computation.
        prompt: what is drawn.
        steps: of the default solver.
    """
    engine = load_engine(None, "cpu", dtype)

    def draw(seeds: range, **changes: Any) -> Tensor:
        return engine.pixels([engine.request(prompt, seed=seed, **changes) for seed in seeds])

    began = time.perf_counter()
    alone = torch.cat([draw(range(seed, seed + 1), steps=steps) for seed in range(1, 17)])
    print(f"16 pictures of {steps} steps, each alone: {time.perf_counter() - began:.1f} s")
    for size in (2, 3, 7, 16):
        began = time.perf_counter()
        together = draw(range(1, 1 + size), steps=steps)
        gaps = [apart(one, other) for one, other in zip(alone, together, strict=False)]
        largest, lowest = max(gap for gap, _ in gaps), min(psnr for _, psnr in gaps)
        print(f"a batch of {size}: {largest} of 255, {lowest:.1f} dB, {time.perf_counter() - began:.1f} s")
    for solver in index("solvers"):
        one, many = (draw(seeds, solver=solver, steps=6) for seeds in (range(3, 4), range(1, 5)))
        largest, psnr = apart(one[0], many[2])
        print(f"{solver}: {largest} of 255, {psnr:.1f} dB")


if __name__ == "__main__":
    tyro.cli(main)
