"""Runs that start from a picture: against the exact conditional of a mixture, and through the engine."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_1samp
from torch import Tensor

from drawing import requests_of, steps_of
from unnoise.cli.main import main
from unnoise.core.guidance import bind
from unnoise.core.inversion import invert
from unnoise.core.mixture import Mixture
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import find
from unnoise.core.sample import Step, sample
from unnoise.core.solver import Solver
from unnoise.engine import drawing
from unnoise.engine.engine import Engine, sources_of
from unnoise.engine.events import Failed, Finished
from unnoise.engine.start import Known, begin, cells, levels_from
from unnoise.errors import UnnoiseError
from unnoise.guidances.plain import Plain
from unnoise.solvers.ddim import DDIM
from unnoise.solvers.heun import Heun
from unnoise.solvers.repaint import RePaint

COUNT, SEEN = 600, 0.7


@cache
def world() -> Mixture:
    """Two components in the plane of which the second coordinate, once known, decides for one."""
    means = torch.tensor([[1.0, 0.8], [-1.0, -0.8]], dtype=torch.float64)
    return Mixture(torch.tensor([0.5, 0.5]), means, 0.15 * torch.eye(2, dtype=torch.float64).expand(2, 2, 2))


def drawn(solver: Solver, num_steps: int = 20) -> Tensor:
    """(COUNT,) draws of the first coordinate where the second is SEEN."""
    path, x0 = find("paths", "flow")(), torch.tensor([[0.0, SEEN]], dtype=torch.float64)
    mask = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    noise = NoiseSource(range(COUNT), (2,), torch.float64)
    evaluate = lambda x, here, there, asks: dict.fromkeys(asks, world().estimate(x, here))  # noqa: E731
    denoise = bind(Known(Plain(), x0, mask), evaluate, {"cond": None})
    levels = find("spacings", "trailing")().levels(path, num_steps)
    for step in sample(denoise, solver, levels, levels[0].mix(x0, noise.initial()), noise):
        known = step.run.x[:, 1]
        assert step.there.sigma > 0 or torch.allclose(known, torch.full_like(known, SEEN), atol=1e-12)
        x = step.run.x
    return x[:, 0]


def distance(found: Tensor) -> float:
    """Kolmogorov and Smirnov's distance from the exact conditional law."""
    law = world().given([1], torch.tensor([SEEN]))
    spread = law.covariances[:, 0, 0].sqrt()

    def below(values: np.ndarray) -> np.ndarray:
        z = (torch.as_tensor(values)[:, None] - law.means[:, 0]) / spread
        return (0.5 * (1 + torch.erf(z / math.sqrt(2))) @ law.weights).numpy()

    return float(ks_1samp(found.numpy(), below).statistic)


@pytest.mark.slow
def test_repaint_draws_what_goes_with_the_rest_and_replacement_less_so() -> None:
    """1.36/sqrt(600) = 0.056 is what a fair sample exceeds once in twenty times."""
    replaced, repainted = distance(drawn(DDIM(1.0))), distance(drawn(RePaint(20, Heun())))
    assert repainted < 0.06
    assert replaced > 0.08, "the approximation can be told from the truth"


def test_a_mask_that_keeps_nothing_changes_nothing() -> None:
    x, here = torch.randn(3, 2, dtype=torch.float64), find("paths", "flow")().at(0.4)
    known = Known(Plain(), torch.zeros(1, 2), torch.ones(1, 2))
    evaluate = lambda x, here, there, asks: dict.fromkeys(asks, world().estimate(x, here))  # noqa: E731
    e, plain = bind(known, evaluate, {"cond": None})(x, here), world().estimate(x, here)
    assert torch.equal(e.x0, plain.x0)
    assert torch.equal(e.eps, plain.eps)


@pytest.mark.parametrize("strength", [0.02, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 30])
def test_as_many_steps_as_were_asked_for(steps: int, strength: float) -> None:
    path = find("paths", "flow")()
    levels = levels_from(find("spacings", "trailing")(), path, steps, strength, (4, 16, 16))
    assert len(levels) == steps + 1
    assert levels[-1] == path.at(0.0)
    assert float(levels[0].sigma) == pytest.approx(strength, abs=0.5 / steps + 0.01)


@pytest.mark.parametrize("strength", [0.0, 0.01, 1.01, math.nan])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(UnnoiseError, match="strength"):
        levels_from(find("spacings", "trailing")(), find("paths", "flow")(), 5, strength, (4, 16, 16))


def test_cells_cover_every_pixel_of_the_mask() -> None:
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 15, 16] = 1
    found = cells(mask, (16, 16))
    assert found.sum() == 1
    assert found[0, 0, 1, 2] == 1


# through the engine

PICTURE = Image.fromarray((np.indices((96, 120)).sum(0)[..., None] % 200 + np.zeros(3)).astype(np.uint8))


def last(engine: Engine, mask: Image.Image | None = None, prompt: str = "red apple", **changes: Any) -> Step:
    """The last step of a run from the picture."""
    return steps_of(engine, prompt, 3, PICTURE, mask, **{"steps": 6} | changes)[-1].step


def test_the_weaker_the_nearer(engine: Engine) -> None:
    x0 = begin(engine.model.autoencoder, PICTURE, (128, 128), 1.0).x0
    gaps = [float((last(engine, strength=s).run.x - x0).square().mean()) for s in (0.1, 0.5, 1.0)]
    assert gaps == sorted(gaps)


def test_what_is_masked_dark_stays(engine: Engine) -> None:
    mask = Image.new("L", PICTURE.size)
    mask.paste(255, (60, 0, 120, 96))
    start = begin(engine.model.autoencoder, PICTURE, (128, 128), 1.0, mask)
    assert start.mask is not None
    assert 0 < start.mask.sum() < 256
    for solver in ("euler", "dpmpp-2m", "repaint(3)", "ddim(1)"):
        x = last(engine, mask, solver=solver).run.x
        kept = (1 - start.mask).bool().expand_as(x)
        assert torch.allclose(x[kept], start.x0[kept], atol=1e-4), solver
        assert not torch.allclose(x, start.x0, atol=1e-2)


def test_inversion_leads_back_and_other_words_elsewhere(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    x0 = begin(engine.model.autoencoder, PICTURE, (128, 128), 1.0).x0

    def gap(prompt: str, **changes: Any) -> float:
        x = last(engine, None, prompt, steps=40, solver="euler", cfg_scale=1.0, **changes).run.x
        return float((x - x0).square().mean())

    usual = gap("red apple", invert="red apple")
    assert gap("blue heart", invert="red apple") > usual
    assert gap("red apple", strength=1.0) > usual, "the control: from noise it is another picture"
    monkeypatch.setattr(drawing, "ROUNDS", 30)
    inverted = gap("red apple", invert="red apple")
    assert inverted < 1e-6
    monkeypatch.setattr(drawing, "ROUNDS", 0)
    assert inverted < usual < gap("red apple", invert="red apple")


def test_pictures_that_are_inverted_alike_are_inverted_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start is one, whatever the seeds, and inverting takes as long as drawing."""
    begun = []
    monkeypatch.setattr(drawing, "begin", lambda *how: begun.append(how) or begin(*how))
    calls = []
    monkeypatch.setattr(drawing, "invert", lambda *how: calls.append(how) or invert(*how))
    how: dict[str, Any] = {"steps": 2, "start": PICTURE, "invert": "blue heart"}
    (alone,) = engine.generate("red apple", seed=2, **how, strict=True)
    once = len(calls)
    for strict in (False, True):
        calls.clear()
        begun.clear()
        *_, last = engine.generate("red apple", count=3, **how, strict=strict)
        assert (len(begun), len(calls)) == (1, once)
    assert last.tobytes() == alone.tobytes()


def test_whoever_waits_for_an_inversion_goes_on_without_the_one_that_began_it(engine: Engine) -> None:
    sources, own = sources_of(PICTURE, None)
    requests = requests_of(engine, ["red apple"] * 3, [1, 2, 3], steps=2, invert="blue heart", **own)
    wanted = engine.pictures(requests[1:], sources)
    live = engine.live(sources)
    for request in requests:
        live.add(request)
    events = live.tick()
    live.cancel(0)
    while live:
        events += live.tick()
    done = {each.number: each.picture.tobytes() for each in events if isinstance(each, Finished)}
    assert done == {1: wanted[0].tobytes(), 2: wanted[1].tobytes()}
    assert [each.number for each in events if isinstance(each, Failed)] == [0]


def test_from_the_command_line(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    PICTURE.save("start.png")
    Image.new("L", PICTURE.size, 255).save("mask.png")
    Image.new("L", (19, 19)).save("small.png")
    base = ["generate", "red apple", "--seed", "1", "--steps", "3", "--model", str(tiny_model)]
    for extra in (["--strength", "0.4"], ["--mask", "mask.png"], ["--invert", "blue heart"], []):
        assert main([*base, "--start", "start.png", *extra]) == 0
    assert len(list(Path("pictures").iterdir())) == 4
    assert main(["replay", "pictures/red-apple-1.png", "--model", str(tiny_model)]) == 1
    assert "was drawn from a start, which is not in it" in capsys.readouterr().err
    for extra, said in (
        (["--mask", "mask.png"], "mask speaks of a picture"),
        (["--strength", "0.5"], "strength speaks of a picture"),
        (["--start", "none.png"], "there is no picture"),
        (["--start", "start.png", "--strength", "2"], "strength 2 is out of range"),
        (["--start", "start.png", "--mask", "small.png"], "the mask is (19, 19)"),
    ):
        assert main([*base, *extra]) == 1
        assert said in capsys.readouterr().err
