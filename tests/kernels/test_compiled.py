"""Compiled networks: the same pictures, code that is really used, a word where nothing can be compiled."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tiny import UNET, lively
from unnoise.core.condition import Condition
from unnoise.kernels.compiled import CACHE, compile_network, is_compiled
from unnoise.networks.unet import UNet
from unnoise.pipelines.load import load_pipeline
from unnoise.pipelines.metadata import run_record
from unnoise.pipelines.text_to_picture import Pipeline

PROMPTS, SEEDS = ["red apple", "blue heart"], [1, 2]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Code is kept apart from that of whoever runs the tests."""
    os.environ.setdefault(CACHE, str(tmp_path_factory.mktemp("compiled")))


def calls() -> int:
    """How many calls have been compiled so far."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def drawn(pipeline: Pipeline, **settings: object) -> Tensor:
    for step in pipeline.run(PROMPTS, SEEDS, "", pipeline.settings(**settings)):
        x = step.run.x
    return x


@pytest.mark.slow
def test_a_compiled_model_draws_what_it_drew(tiny_model: Path) -> None:
    plain, fast = load_pipeline(tiny_model, "cpu"), load_pipeline(tiny_model, "cpu", compiled=True)
    before = calls()
    wanted, other = drawn(plain), drawn(plain, cfg_scale=3.0)
    assert calls() == before, "a model that was loaded without is not compiled"
    found = drawn(fast)
    assert calls() == before + 1, "all steps run one piece of code"
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (other - wanted).abs().max() > 0.01, "control: another scale is told apart"
    assert run_record(fast, "", "", fast.defaults)["made_by"]["compiled"] is True
    assert run_record(plain, "", "", plain.defaults)["made_by"]["compiled"] is False


@pytest.mark.slow
def test_calls_that_look_or_change_inside_are_not_compiled(tiny_model: Path) -> None:
    plain, fast = load_pipeline(tiny_model, "cpu"), load_pipeline(tiny_model, "cpu", compiled=True)
    drawn(fast, guidance="pag")
    before, wanted = calls(), drawn(plain, guidance="pag")
    torch.testing.assert_close(drawn(fast, guidance="pag"), wanted, rtol=1e-4, atol=1e-4)
    assert (wanted - drawn(plain)).abs().max() > 0.01, "control: something was changed inside"
    assert calls() == before, "nothing is compiled anew"


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
                torch.testing.assert_close(network(x, label, cond)[0], said[-1], rtol=1e-4, atol=1e-4)
    apart = [float((a - b).abs().max()) for i, a in enumerate(said) for b in said[:i]]
    assert min(apart) > 0.01, "control: other weights are told apart"


def test_without_a_compiler_it_says_so(tiny_model: Path, tmp_path: Path) -> None:
    words = ["generate", "red", "--model", tiny_model, "--compile", "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "unnoise", *map(str, words)],
        env={**os.environ, "CXX": "/bin/false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("unnoise: networks cannot be compiled here (InvalidCxxCompiler")
    assert line.endswith("; install a C++ compiler such as g++, or do not compile")
    assert not (tmp_path / "out").exists(), "nothing is left"
