"""The memory that a training needs: counted from shapes, held against what a process really takes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.jobs import ENV
from unnoise.core.condition import Condition
from unnoise.errors import UnnoiseError
from unnoise.networks.sd_unet import SDUNet, SDUNetConfig
from unnoise.training import memory
from unnoise.training.memory import PROGRAM, kept, needed
from unnoise.training.optimiser import AT_A_TIME
from unnoise.training.settings import TrainSettings

PLAIN = TrainSettings(samples=1, matrix_rate=0, averages=())
MIDDLING = SDUNetConfig(channels=(128, 256, 384), depth=(1, 1, 0), heads=(4, 4, 4), text_width=64)
ROWS, CELLS = 2, 32


def meta(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).to("meta")


def test_what_adamw_holds() -> None:
    """Weights, gradients and two moments, 4 bytes each, and what is fixed; the copies of an update are at the end."""
    module, fixed = meta(nn.Linear(1000, 1000)), meta(nn.Linear(10, 10), nn.Linear(10, 3))
    need = needed(module, [fixed], PLAIN, 0)
    weights = 4 * 1_001_000
    assert (need.weights, need.gradients, need.averages, need.fixed) == (weights, weights, 0, 4 * 143)
    assert need.moments == 2 * weights + 4, "and the count of steps"
    assert need.copies == 2 * weights, "clipped gradients, and roots of the second moments"
    assert need.peak == 6 * weights + 4 + 4 * 143 + PROGRAM
    assert needed(module, [fixed], PLAIN, 10**9).peak == 4 * weights + 4 + 4 * 143 + PROGRAM + 10**9


def test_large_networks_are_updated_in_pieces() -> None:
    """And written without copies, but for what lies channels last."""
    need = needed(meta(*(nn.Linear(4096, 4096, bias=False) for _ in range(8))), [], PLAIN, 0)
    assert need.copies == 2 * 4 * AT_A_TIME
    convolutions = meta(*(nn.Conv2d(1024, 1024, 3, bias=False) for _ in range(8)))
    assert needed(convolutions, [], PLAIN, 0).copies == need_of(convolutions), "both moments, less the gradients' room"


def need_of(module: nn.Module) -> int:
    return 4 * sum(p.numel() for p in module.parameters())


def test_what_is_not_fixed_is_counted() -> None:
    module = meta(nn.Linear(1000, 1000), nn.Linear(1000, 1000))
    plain = needed(module, [], PLAIN, 0)
    averaged = needed(module, [], replace(PLAIN, averages=(0.05, 0.1)), 0)
    assert averaged.averages == 2 * plain.weights
    muon = needed(module, [], replace(PLAIN, matrix_rate=0.02), 0)
    assert plain.weights < muon.moments < 1.01 * plain.weights, "one momentum, but of biases two moments"
    assert muon.copies == 4 * memory.COPIES * 2_000_000, "two matrices of one shape"


def call(network: SDUNet) -> Tensor:
    device = next(network.parameters()).device
    cond = Condition(tokens=torch.zeros(ROWS, 77, network.config.text_width, device=device))
    x = torch.zeros(ROWS, 4, CELLS, CELLS, device=device)
    output: Tensor = network(x, torch.zeros(ROWS, device=device), cond)[0]
    return output


def test_activations_are_what_a_real_call_keeps() -> None:
    """Counted on the meta device and on the processor; the control keeps the maps of attention, as the meta device does
    by itself."""
    shape = replace(MIDDLING, channels=(32, 64, 64), heads=(2, 2, 2))
    with torch.device("meta"):
        there = SDUNet(shape)
    here = SDUNet(shape)
    counted = kept(there, lambda: call(there))
    found: dict[int, Tensor] = {}
    own = {p.untyped_storage()._cdata for p in (*here.parameters(), *there.parameters())}

    def pack(tensor: Tensor) -> Tensor:
        found.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    def size() -> int:
        return sum(t.untyped_storage().nbytes() for place, t in found.items() if place not in own)

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        call(here)
    assert counted == pytest.approx(size(), rel=0.08)
    found.clear()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        call(there)
    assert size() > 1.5 * counted, "control"


def test_more_than_is_free_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    need = needed(meta(nn.Linear(1000, 1000)), [], PLAIN, 10**9)
    memory.check(need, "it", 2.1)
    for free, budget, words in ((10**9, None, "1.0 GB are free"), (10**12, 1.5, "1.5 GB are what it may take")):
        monkeypatch.setattr(memory, "free", lambda free=free: free)
        with pytest.raises(
            UnnoiseError, match=f"it needs about 2.0 GB of memory .activations 1.0, program 1.0.*{words}"
        ):
            memory.check(need, "it", budget)
    monkeypatch.setattr(memory, "free", lambda: None)
    memory.check(need, "it")


def test_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a container its limit, less what it holds besides files that can be read again."""
    free = memory.free()
    assert free is not None
    assert 10**6 < free < 10**15
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    (tmp_path / "memory.stat").write_text("anon 2000000\nfile 400000\n")
    assert memory.free() == 900_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free() != 900_000


# what a process takes

CHILD = """
import sys
from pathlib import Path
import torch
from training.test_memory import MIDDLING, PLAIN, ROWS, call
from unnoise.core.objective import Loss, Objective, Phase, Role
from unnoise.networks.sd_unet import SDUNet
from unnoise.training.trainer import Trainer

class One(Objective):
    def __init__(self):
        super().__init__()
        self.network = SDUNet(MIDDLING).to(memory_format=torch.channels_last)
    def roles(self):
        return {"network": Role(self.network)}
    def phases(self):
        return [Phase("all", ("network",), 1, lambda batch, draws: Loss(call(self.network).square().mean()))]

class Data:
    weights, identity = torch.ones(4), "none"
    def batch(self, items, draws):
        return {}

def peak():  # of this process alone: getrusage has that of its parent, too
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

before = peak()
settings = __import__("dataclasses").replace(PLAIN, samples=2 * ROWS, batch=ROWS, warmup=0)
trainer = Trainer(One(), Data(), settings, Path(sys.argv[1]))
trainer.save()
steps = list(trainer.run())
trainer.save()
assert len(steps) == 2 and not any(step.skipped for step in steps)
print(before, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the figure is read off Linux")
def test_a_process_takes_what_was_counted(tmp_path: Path) -> None:
    """Two steps and two saves of a network of 30 million weights, in a process of its own. The control leaves out the
    moments; the bound leaves room for what libraries keep for themselves."""
    answer = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "run")], env=ENV, capture_output=True, text=True, check=True
    ).stdout
    before, after = map(int, answer.split())
    with torch.device("meta"):
        network = SDUNet(MIDDLING)
    need = needed(network, [], PLAIN, kept(network, lambda: call(network)))
    counted, took = need.peak - PROGRAM, after - before
    print(counted, took, before)
    assert before < PROGRAM
    assert 0.8 * counted < took < 1.3 * counted
    assert took > 1.1 * (counted - need.moments), "control"
