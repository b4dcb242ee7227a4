"""Averages made after the training are those that would have been kept: the algebra, a real run, and the verb."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.test_optimiser import profile
from training.toy import SETTINGS, ToyData, toy, trainer
from unnoise.cli.average import recipe_arguments
from unnoise.cli.main import main
from unnoise.core.mixture import integrate
from unnoise.core.registry import register
from unnoise.errors import UnnoiseError
from unnoise.training import checkpoint
from unnoise.training.averages import PowerAverage, gamma_of
from unnoise.training.plan import Training
from unnoise.training.posthoc import Fit, Profile, fit, inner, restore
from unnoise.training.settings import TrainSettings
from unnoise.training.trainer import Trainer

STEPS, EVERY, OTHERS = 240, 20, (0.03, 0.07, 0.12, 0.2)


def value(p: Profile, t: float) -> float:
    return (p.gamma + 1) * t**p.gamma / p.steps ** (p.gamma + 1) if t <= p.steps else 0.0


@pytest.mark.parametrize(("a", "b"), [((90, 6.94), (90, 16.97)), ((40, 6.94), (90, 3.0)), ((90, 2.0), (35, 16.97))])
def test_inner_products_are_the_integrals(a: tuple[int, float], b: tuple[int, float]) -> None:
    p, q = Profile(*a), Profile(*b)

    def slope(t: float, y: Tensor) -> Tensor:
        return torch.full_like(y, value(p, t) * value(q, t))

    end = float(min(p.steps, q.steps))  # the product is 0 after it
    by_hand = integrate(slope, torch.zeros(1, 1, dtype=torch.float64), 0.0, end, 1e-13)
    assert inner(p, q) == pytest.approx(float(by_hand), rel=1e-9)
    assert inner(p, q) == inner(q, p)


def test_kept_averages_are_the_integrals_of_their_profile() -> None:
    """The share of step t, multiplied out from its betas, is the profile's integral from t - 1 to t, with no limit."""
    gamma = gamma_of(0.1)
    for t, share in enumerate(profile(60, gamma), 1):
        assert share == pytest.approx((t / 60) ** (gamma + 1) - ((t - 1) / 60) ** (gamma + 1), abs=1e-14)


def kept(steps: range, widths: tuple[float, ...] = (0.05, 0.1)) -> list[Profile]:
    return [Profile(t, gamma_of(width)) for t in steps for width in widths]


def test_what_was_kept_is_found_again() -> None:
    profiles = kept(range(20, 241, 20))
    found = fit(profiles, profiles[-1])
    assert found.error < 1e-6
    assert found.coefficients[-1] == pytest.approx(1, abs=1e-4)
    assert sum(found.coefficients) == pytest.approx(1, abs=1e-9)


def test_more_checkpoints_fit_better_and_few_cannot() -> None:
    wanted = Profile(STEPS, gamma_of(0.07))
    errors = [fit(kept(range(every, STEPS + 1, every)), wanted).error for every in (120, 60, 30, 15)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 5e-3
    assert fit(kept(range(STEPS, STEPS + 1), (0.1,)), wanted).error > 0.1, "one profile has one shape"
    assert fit(kept(range(30, STEPS + 1, 30)), Profile(STEPS, gamma_of(0.005))).error > 0.1, "narrower than all"
    with pytest.raises(UnnoiseError, match="no averages"):
        fit([], wanted)


def test_no_other_sum_is_nearer() -> None:
    """The fit is the least: moving any two coefficients against each other makes it worse."""
    profiles, wanted = kept(range(60, 241, 60)), Profile(STEPS, gamma_of(0.15))
    found = fit(profiles, wanted)

    def off(x: list[float]) -> float:
        pairs = list(zip(x, profiles, strict=True))
        total = inner(wanted, wanted) - 2 * sum(c * inner(p, wanted) for c, p in pairs)
        return total + sum(c * d * inner(p, q) for c, p in pairs for d, q in pairs)

    best = off(list(found.coefficients))
    assert math.sqrt(best / inner(wanted, wanted)) == pytest.approx(found.error, rel=1e-4)
    for i in range(len(profiles)):
        for move in (-0.01, 0.01):
            moved = list(found.coefficients)
            moved[i] += move
            moved[(i + 3) % len(moved)] -= move
            assert off(moved) > best


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, dict[float, PowerAverage], float]:
    """A training that keeps checkpoints, averages of other widths really kept beside it, how far its weights went."""
    folder = tmp_path_factory.mktemp("run")
    made = trainer(folder, samples=4 * STEPS, keep=100, averages=(0.05, 0.1), matrix_rate=0.05, rate=0.01)
    net: nn.Module = made.roles["net"].module
    beside = {width: PowerAverage(net, width) for width in OTHERS}
    path = []
    for step in made.run():
        for average in beside.values():
            average.update(step.step)
        path.append(torch.cat([p.detach().flatten().double() for p in net.parameters()]))
        if step.step % EVERY == 0:
            made.save()
    history = torch.stack(path)
    return made, beside, float((history - history.mean(0)).pow(2).sum(0).max().sqrt())


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[n].double() - b[n].double()).abs().max()) for n in b)


def restored(made: Trainer, width: float, paths: list[Path]) -> tuple[dict[str, Tensor], Fit]:
    found = restore(made, paths, width)
    return made.averages.pop(f"net.average-{width:g}").tensors, found


@pytest.mark.parametrize("width", OTHERS)
def test_a_run_gives_the_averages_that_it_did_not_keep(
    run: tuple[Trainer, dict[float, PowerAverage], float], width: float
) -> None:
    made, beside, travel = run
    paths = checkpoint.checkpoints(made.folder)
    assert len(paths) == STEPS // EVERY
    mine, found = restored(made, width, paths)
    off = distance(mine, beside[width].tensors)
    norm = math.sqrt(inner(*[Profile(STEPS, gamma_of(width))] * 2))
    assert off <= found.error * norm * travel + 1e-6, "Cauchy and Schwarz: how wrong the profile is bounds the weights"
    near = min(distance(made.averages[f"net.average-{w:g}"].tensors, beside[width].tensors) for w in (0.05, 0.1))
    assert off < 0.05 * near, "the control: what was kept is no such average"
    few, rough = restored(made, width, paths[-1:])
    assert rough.error > 2 * found.error
    assert distance(few, beside[width].tensors) > 2 * off, "the control: one checkpoint does not tell it"


def test_coefficients_belong_to_their_checkpoints(run: tuple[Trainer, dict[float, PowerAverage], float]) -> None:
    """The control: the same shares in another order make no such average."""
    made, beside, _ = run
    paths = checkpoint.checkpoints(made.folder)
    shares = fit(kept(range(EVERY, STEPS + 1, EVERY)), Profile(STEPS, gamma_of(0.07))).coefficients
    files = [checkpoint.read(path)[1] for path in paths]
    key = "hidden.weight"
    sources = [f[f"net.average-{w:g}"][key].double() for f in files for w in (0.05, 0.1)]
    wanted = beside[0.07].tensors[key].double()

    def off(order: list[Tensor]) -> float:
        total = torch.zeros_like(wanted)
        for share, tensor in zip(shares, order, strict=True):
            total = total + share * tensor
        return float((total - wanted).abs().max())

    assert off(sources) < 0.1 * off(sources[1::2] + sources[::2])


@pytest.mark.parametrize("width", [0.0, -1.0, 0.3, math.nan])
def test_widths_that_are_none_are_refused(run: tuple[Trainer, dict[float, PowerAverage], float], width: float) -> None:
    with pytest.raises(UnnoiseError, match="width"):
        restore(run[0], [], width)


FINISHED: list[nn.Module] = []


def toy_kept(train: TrainSettings = replace(SETTINGS, samples=160, keep=20, averages=(0.05, 0.1))) -> Training:
    """A recipe that remembers what it finished.

    Args:
        train: length and rates.
    """
    training = toy(ToyData())

    def finish(modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
        from unnoise.encoders.pair import Pair, PairConfig

        FINISHED.append(copy.deepcopy(modules["net"]))
        return {"pair": Pair(PairConfig(2, 2, 2))}

    return replace(training, settings=train, finish=finish)


toy_kept.kind = "recipes"  # type: ignore[attr-defined]
register("toy-kept")(toy_kept)


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, made = tmp_path / "run", tmp_path / "softer"
    assert main(["train", "toy-kept", "--run.dtype", "float32", "--run.out", str(out)]) == 0
    own = FINISHED[-1].state_dict()
    capsys.readouterr()
    assert main(["average", str(out), "--width", "0.05", "--out", str(tmp_path / "same"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"model": str(tmp_path / "same"), "width": 0.05, "step": 40, "checkpoints": 11, "error": 0.0}
    assert distance(FINISHED[-1].state_dict(), own) < 1e-5, "the model that the training made"
    assert main(["average", str(out), "--width", "0.15", "--out", str(made)]) == 0
    assert (made / "model.json").is_file()
    assert distance(FINISHED[-1].state_dict(), own) > 1e-4
    assert "width 0.15 at step 40, from 11 checkpoints" in capsys.readouterr().out
    for words, said in (
        (["--width", "0.15", "--out", str(made)], "already exists"),
        (["--width", "0.4", "--out", str(out / "x")], "--width 0.4 is out of range"),
        (["--width", "0.004", "--out", str(out / "x")], "are too few for an average of width 0.004"),
    ):
        assert main(["average", str(out), *words]) == 1
        assert said in capsys.readouterr().err
    assert main(["average", str(tmp_path), "--width", "0.1", "--out", str(out / "x")]) == 1
    assert "no training at" in capsys.readouterr().err
    assert not (out / "x").exists()


def test_where_it_ran_is_no_part_of_the_recipe() -> None:
    given = ["--run.dtype", "float32", "--train.samples", "8", "--run.threads=2", "--run.no-resume", "--run.compile"]
    given += ["--width", "16"]
    assert recipe_arguments(given) == ["--train.samples", "8", "--width", "16"]
