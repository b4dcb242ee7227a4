"""Combinations that make no sense are refused by name before a network is asked; what goes wrong later tells where."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from laws.world import path
from tiny import DEFAULTS, components, tokenizer
from unnoise.cli.main import main
from unnoise.core.denoiser import Denoiser
from unnoise.core.registry import find, index
from unnoise.errors import UnnoiseError
from unnoise.networks.unet import UNet
from unnoise.weights.model import save_model

Said = pytest.CaptureFixture[str]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each call of a network in a run: of two rows, guided. Loading tries a network on one row."""
    calls: list[int] = []
    forward = UNet.forward

    def counted(self: UNet, x: Tensor, *args: Any, **settings: Any) -> Any:
        calls.extend([len(x)] if len(x) > 1 else [])
        return forward(self, x, *args, **settings)

    monkeypatch.setattr(UNet, "forward", counted)
    return calls


def complaint(capsys: Said, out: Path, *args: str) -> str:
    """What `unnoise generate` says; it leaves nothing behind."""
    assert main(["generate", "red apple", "--out", str(out), "--seed", "1", *args]) == 1
    err = capsys.readouterr().err
    assert err.startswith("unnoise: ")
    assert err.count("\n") == 1
    assert not out.exists()
    return err


REFUSED = [
    (["--steps", "0"], "steps 0 is out of range"),
    (["--guidance", "interval(low=3, high=1)"], "interval: the interval from 3 to 1 is empty"),
    (["--guidance", "interval(cfg(4), 2, 2)"], "interval: the interval from 2 to 2 is empty"),
    (["--guidance", "cfg(nan)"], "cfg: scale is 'nan', which is no number"),
    (["--guidance", "rescale(amount=7)"], "rescale: amount 7 is out of range"),
    (["--spacing", "custom(times=[0.2, 0.7])", "--steps", "2"], "noise levels must fall"),
    (["--spacing", "custom(times=[1, 0.5, 0.5])", "--steps", "3"], "noise levels must fall"),
    (["--spacing", "custom(times=[1, nan])", "--steps", "2"], "custom: times[1] is 'nan', which is no number"),
    (["--spacing", "custom(times=[1, 0.5])", "--steps", "3"], "2 levels were given for 3 steps"),
    (["--spacing", "karras(sigma_min=9, sigma_max=2)"], "a ramp of noise from 2 down to 9 is empty"),
    (["--spacing", "shifted(0)"], "shifted: shift 0 is out of range"),
    (["--spacing", "shifted(nan)"], "shifted: shift is 'nan', which is no number"),
    (["--solver", "ddim(eta=2)"], "ddim: eta 2 is out of range; choose a number from 0 to 1"),
    (["--solver", "unipc(points=9)"], "unipc: points 9 is out of range"),
]


@pytest.mark.parametrize(("args", "said"), REFUSED, ids=lambda value: str(value)[:50])
def test_refused_before_the_network_is_asked(
    args: list[str], said: str, tiny_model: Path, tmp_path: Path, capsys: Said, asked: list[int]
) -> None:
    assert said in complaint(capsys, tmp_path / "out", "--model", str(tiny_model), *args)
    assert not asked


def test_what_is_counted_is_counted(tiny_model: Path, tmp_path: Path, asked: list[int]) -> None:
    """The control: a run that makes sense does ask."""
    out = str(tmp_path / "out")
    assert main(["generate", "red apple", "--model", str(tiny_model), "--out", out, "--steps", "2"]) == 0
    assert len(asked) == 2


def test_noise_prediction_at_zero_terminal_snr(tmp_path: Path, capsys: Said, asked: list[int]) -> None:
    """A network that says the noise alone cannot start at pure noise; from a level short of it, it can."""
    parts = components()
    parts["denoiser"] = Denoiser(parts["denoiser"].network, find("paths", "zero-snr")(), find("predictions", "noise")())
    save_model(tmp_path / "model", parts, {"name": "dark", "defaults": DEFAULTS}, {"tokenizer.json": tokenizer().json})
    args, out = ["--model", str(tmp_path / "model")], tmp_path / "out"
    said = complaint(capsys, out, *args)
    assert "noise prediction cannot be inverted at alpha = 0, sigma = 1" in said
    assert not asked
    assert main(["generate", "red apple", *args, "--out", str(out), "--spacing", "leading"]) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_network_that_fails_stops_at_that_step_s_level(
    bad: float, tiny_model: Path, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third of four calls answers with one number that is none: the step's number and level are told."""
    right, calls = Denoiser.call, list[float]()

    def failing(self: Denoiser, scaled: Tensor, label: Tensor, *rest: Any, **more: Any) -> Any:
        calls.append(float(label[0]))
        output, features = right(self, scaled, label, *rest, **more)
        if len(calls) == 3:
            output[0, 0, 0, 0] = bad
        return output, features

    monkeypatch.setattr(Denoiser, "call", failing)
    said = complaint(capsys, tmp_path / "out", "--model", str(tiny_model), "--steps", "4")
    assert "step 3 of 4 (alpha 0.5, sigma 0.5) gave numbers that are not finite" in said
    assert calls == [1000.0, 750.0, 500.0]


def numbers() -> Iterator[tuple[str, str, str]]:
    """(kind, method, setting) for every setting of every method that is a number."""
    for kind in ("paths", "predictions", "spacings", "solvers", "guidances"):
        for name in index(kind):
            for key, parameter in inspect.signature(find(kind, name)).parameters.items():
                default = parameter.default
                if isinstance(default, (int, float)) and not isinstance(default, bool):
                    yield kind, name, key


@pytest.mark.parametrize(("kind", "name", "key"), list(numbers()))
def test_what_is_not_a_number_is_refused_where_it_is_given(kind: str, name: str, key: str) -> None:
    def given() -> None:
        thing = find(kind, name)(**{key: math.nan})
        if kind == "spacings":  # some learn from the path what makes sense
            thing.levels(path("flow"), 5, (3, 16, 16))

    with pytest.raises(UnnoiseError):
        given()
