"""Compiled networks: the same pictures, code that is really used, a word where nothing can be compiled."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compiling import afresh, compiled  # noqa: F401
from drawing import latents_of
from tiny import UNET, lively
from unnoise.cli import main as front
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.edit import Edit
from unnoise.engine.engine import Engine
from unnoise.engine.load import load_engine
from unnoise.engine.metadata import about_maker
from unnoise.kernels.compiled import CACHE, compile_network, eagerly, is_compiled
from unnoise.networks.layers import MLP
from unnoise.networks.unet import UNet
from unnoise.paths.flow import Flow
from unnoise.predictions.flow import FlowVelocity

PROMPTS, SEEDS = ["red apple", "blue heart"], [1, 2]


def drawn(engine: Engine, **settings: object) -> Tensor:
    return latents_of(engine, PROMPTS, SEEDS, **settings)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_compiled_model_draws_what_it_drew(tiny_model: Path) -> None:
    """And calls in which guidance changes something inside, or which something is read from, are left as they are."""
    plain, fast = load_engine(tiny_model, "cpu"), load_engine(tiny_model, "cpu", compiled=True)
    before = compiled()
    wanted, changed = drawn(plain), drawn(plain, guidance="pag")
    assert compiled() == before, "a model that was loaded without is not compiled"
    close(drawn(fast), wanted)
    assert compiled() == before + 1, "all steps run one piece of code"
    close(drawn(fast, guidance="pag"), changed)
    assert compiled() == before + 1, "three rows of prompt, empty prompt and changed call would be others"
    assert (changed - wanted).abs().max() > 0.01, "control: another guidance is told apart"
    assert about_maker(fast.model)["compiled"] is True
    assert about_maker(plain.model)["compiled"] is False


@pytest.mark.slow
def test_each_network_has_its_own_weights_and_they_may_change() -> None:
    torch.manual_seed(0)
    x, label = torch.randn(2, 4, 16, 16), torch.tensor([300.0, 700.0])
    cond = Condition(torch.randn(2, 8, 32), torch.ones(2, 8, dtype=torch.bool), torch.randn(2, 32))
    said = []
    for amount in (0.1, 0.2):
        plain = lively(UNet(UNET), amount)
        network = copy.deepcopy(plain)
        compile_network(network)
        assert is_compiled(network)
        assert not is_compiled(copy.deepcopy(network)), "copies are not"
        with torch.inference_mode():
            for factor in (1.0, 1.1):
                for module in (plain, network):
                    for parameter in module.parameters():
                        parameter.mul_(factor)
                said.append(plain(x, label, cond)[0])
                close(network(x, label, cond)[0], said[-1])
    apart = [float((a - b).abs().max()) for i, a in enumerate(said) for b in said[:i]]
    assert min(apart) > 0.01, "control: other weights are told apart"


@pytest.mark.slow
def test_eagerly_nothing_is_compiled() -> None:
    network = MLP(2)
    compile_network(network)
    before, x = compiled(), torch.randn(3, 2)
    with eagerly([nn.Linear(1, 1), network]):
        network(x)
    assert compiled() == before
    close(network(x), copy.deepcopy(network)(x))
    assert compiled() == before + 1, "control"


def counted(denoiser: Denoiser, network: nn.Module) -> dict[str, int]:
    """How often hooks of the network fire in a call of each kind; one is there from the first, one from the second."""
    torch.manual_seed(0)
    x, level = torch.randn(2, 4, 16, 16), Flow().at(0.5)
    cond = Condition(torch.randn(2, 8, 32), torch.ones(2, 8, dtype=torch.bool), torch.randn(2, 32))
    calls: dict[str, dict[str, Any]] = {
        "plain": {},
        "edits": {"edits": (Scale(("*",), 1.5),)},
        "read": {"read": ("mid.0",)},
        "plain again": {},
    }
    fired: list[str] = []
    network.register_forward_pre_hook(lambda *_: fired.append("before"))
    found = {}
    with torch.no_grad():
        for name, more in calls.items():
            fired.clear()
            denoiser(x, level, cond=cond, **more)
            found[name] = len(fired)
            if name == "plain":
                network.register_forward_hook(lambda *_: fired.append("after"))
    return found


@dataclass(frozen=True)
class Scale(Edit):
    """A site's value times a number."""

    factor: float = 1.0

    def __call__(self, site: str, value: Tensor) -> Tensor:
        return value * self.factor


HOOKS = {"plain": 1, "edits": 2, "read": 2, "plain again": 2}


class Past(nn.Module):
    """A network that passes by the hooks of another where something is changed or read in it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *args: Any, edits: Any = (), read: Any = ()) -> Any:
        return (self.network.forward if edits or read else self.network)(*args, edits=edits, read=read)


def made(network: nn.Module) -> Denoiser:
    return Denoiser(network, Flow(), FlowVelocity())


def test_hooks_fire_on_calls_of_every_kind() -> None:
    network = lively(UNet(UNET))
    assert counted(made(network), network) == HOOKS
    network = lively(UNet(UNET))
    assert counted(made(Past(network)), network) == HOOKS | {"edits": 0, "read": 0}, "control"


@pytest.mark.slow
def test_hooks_fire_on_calls_of_a_compiled_network() -> None:
    network, before = lively(UNet(UNET)), compiled()
    compile_network(network)
    assert counted(made(network), network) == HOOKS
    assert compiled() == before + 2, "the line that is tried, and the plain call: compiled code was really used"


@pytest.mark.slow
def test_without_a_compiler_it_says_so(tiny_model: Path, tmp_path: Path) -> None:
    words = ["generate", "red", "--model", tiny_model, "--device", "cpu", "--compile", "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "unnoise", *map(str, words)],
        env={**os.environ, "CXX": "/bin/false", CACHE: str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("unnoise: networks cannot be compiled here (InvalidCxxCompiler")
    assert "; install a C++ compiler and Python's headers" in line
    assert not (tmp_path / "out").exists(), "nothing is left"


def test_a_compiler_that_fails_later_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failed(RuntimeError):
        __module__ = "torch._inductor.exc"

    def fails(args: list[str]) -> None:
        raise Failed("CppCompileError: C++ compile error\n\nCommand: g++ ...")

    monkeypatch.setattr(front, "run", fails)
    assert front.main(["generate", "red"]) == 1
    said = capsys.readouterr().err
    assert (
        said == "unnoise: the network could not be compiled (CppCompileError: C++ compile error); leave --compile out\n"
    )
