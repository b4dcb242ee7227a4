"""What a change costs: the same work by two source trees, in alternate processes, with the ratios pair by pair.

git worktree add ../before COMMIT
python bench/before_after.py ../before/src src --rounds 4
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

DRAW = """
import json, time
clock = time.perf_counter
seconds = {}

def timed(name, times, work):
    each = []
    for _ in range(times):
        start = clock()
        work()
        each.append(clock() - start)
    seconds[name] = sorted(each)[len(each) // 2]

start = clock()
import torch
seconds["import torch"] = clock() - start
torch.set_num_threads(2)
start = clock()
import unnoise
engine = unnoise.load(device="cpu", dtype="float32")
seconds["load, with our imports"] = clock() - start
timed("first picture", 1, lambda: engine.generate("red apple", seed=1))
timed("warm picture", 7, lambda: engine.generate("red apple", seed=1))
heun = lambda: engine.generate("red apple", seed=1, solver="heun", steps=10)
many = lambda: engine.generate("red apple", seed=1, count=16)
heun(), many()
timed("warm picture, ten steps of heun", 5, heun)
timed("16 pictures", 3, many)
print(json.dumps(seconds))
"""
TRAIN = """
import json, time, torch
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.objective import Draws
from unnoise.core.registry import find
from unnoise.networks.unet import UNet
from unnoise.objectives.denoising import DenoisingObjective
from unnoise.training.optimiser import Optimiser
from unnoise.training.settings import TrainSettings

torch.set_num_threads(2)
torch.manual_seed(0)
network, rows = UNet().train(), 16
objective = DenoisingObjective(Denoiser(network, find("paths", "flow")(), find("predictions", "flow")()))
optimiser, mask = Optimiser(network, TrainSettings(1000)), (torch.arange(32) < 8)[None]
prompt = Condition(torch.randn(rows, 32, 256), mask.expand(rows, -1), torch.randn(rows, 256))
empty = Condition(torch.randn(1, 32, 256), mask, torch.randn(1, 256))
batch = {"x0": torch.randn(rows, 4, 16, 16), "condition": prompt, "empty": empty}
seconds = []
for step in range(9):
    start = time.perf_counter()
    loss = objective.loss(batch, Draws(0, step, rows, slice(None), torch.device("cpu")))
    loss.total.backward()
    optimiser.step(1.0)
    network.zero_grad()
    seconds.append(time.perf_counter() - start)
print(json.dumps({"training step, 16 rows": sorted(seconds[2:])[3], "loss of the ninth step": loss.total.item()}))
"""


def measure(source: Path, work: str) -> dict[str, float]:
    """What one process of a source tree prints."""
    env = {**os.environ, "PYTHONPATH": str(source.resolve())}
    done = subprocess.run([sys.executable, "-c", work], env=env, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    print("| | before | after | ratio, median | ratios |\n|---|---|---|---|---|")
    for work in (DRAW, TRAIN):
        pairs = [(measure(options.before, work), measure(options.after, work)) for _ in range(options.rounds)]
        for name in pairs[0][0]:
            before, after = ([each[side][name] for each in pairs] for side in (0, 1))
            ratios = sorted(b / a for a, b in zip(before, after, strict=True))
            middle = [f"{statistics.median(values):.3g}" for values in (before, after, ratios)]
            print(f"| {name} | {' | '.join(middle)} | {ratios[0]:.2f} to {ratios[-1]:.2f} |")


if __name__ == "__main__":
    main()
