"""Run by run against k-diffusion with its noise injected: the same numbers in float64, for each method that we share.

k-diffusion knows sigma alone, so the runs are on the exploding path; that the path does not matter is shown here too.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from laws.world import FAMILIES, draw, finish, ladder, mixture, path
from oracles.k_diffusion import sampling
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import find

SIGMAS = [10.0, 6.0, 3.5, 2.5, 1.1, 0.7, 0.3, 0.12, 0.0]  # uneven
LEVELS = [NoiseLevel(1.0, sigma) for sigma in SIGMAS]
ROWS = 16
CLOSE = 1e-10


class Recorded(NoiseSource):
    """Keeps what was drawn: (here, there, noise)."""

    def __init__(self, rows: int = ROWS, width: int = 2) -> None:
        super().__init__(range(rows), (width,), torch.float64)
        self.kept: list[tuple[NoiseLevel, NoiseLevel, Tensor]] = []

    def at(self, index: float) -> Recorded:
        self.index, self._draws = index, 0
        return self

    def between(self, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        self.kept.append((here, there, super().between(here, there)))
        return self.kept[-1][2]


def together(first: tuple[NoiseLevel, NoiseLevel, Tensor], second: tuple[NoiseLevel, NoiseLevel, Tensor]) -> Tensor:
    """The unit noise over both intervals, which are adjacent, in the time 1 / sigma_hat^2."""
    a, b, c = (float(level.sigma_hat) ** -2 for level in (first[0], first[1], second[1]))
    return (math.sqrt(b - a) * first[2] + math.sqrt(c - b) * second[2]) / math.sqrt(c - a)


def model(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
    return mixture().estimate(x, NoiseLevel(1.0, float(sigma[0]))).x0


def theirs(function: str, x: Tensor, draws: list[Tensor], **options: Any) -> Tensor:
    """Their run with these draws; every one of them must be used."""
    end: Tensor = getattr(sampling, function)(
        model,
        x,
        torch.tensor(SIGMAS, dtype=torch.float64),
        disable=True,
        noise_sampler=lambda *_: draws.pop(0),
        **options,
    )
    assert not draws
    return end


CASES = [
    ("euler-a", "sample_euler_ancestral", {}, {}),
    ("euler-a", "sample_euler_ancestral", {"eta": 0.4, "s_noise": 1.1}, {}),
    ("dpm-2-a", "sample_dpm_2_ancestral", {}, {}),
    ("dpm-2-a", "sample_dpm_2_ancestral", {"eta": 0.4, "s_noise": 1.1}, {}),
    ("dpmpp-2s-a", "sample_dpmpp_2s_ancestral", {}, {}),
    ("dpmpp-2s-a", "sample_dpmpp_2s_ancestral", {"eta": 0.4, "s_noise": 1.1}, {}),
    ("dpmpp-2m-sde", "sample_dpmpp_2m_sde", {}, {}),
    ("dpmpp-2m-sde", "sample_dpmpp_2m_sde", {"eta": 0.4, "s_noise": 1.1}, {}),
    ("dpmpp-2m-sde", "sample_dpmpp_2m_sde", {"eta": 1.5}, {"heun": True}),
    ("dpmpp-2m-sde", "sample_dpmpp_2m_sde", {"eta": 0.0}, {}),
    ("dpmpp-3m-sde", "sample_dpmpp_3m_sde", {}, {"published": True}),
    ("dpmpp-3m-sde", "sample_dpmpp_3m_sde", {"eta": 0.4, "s_noise": 1.1}, {"published": True}),
    ("dpmpp-sde", "sample_dpmpp_sde", {}, {}),
    ("dpmpp-sde", "sample_dpmpp_sde", {"eta": 0.4, "s_noise": 1.1, "r": 0.3}, {}),
]


@pytest.mark.parametrize(("name", "function", "options", "form"), CASES)
def test_the_same_as_k_diffusion(name: str, function: str, options: dict[str, Any], form: dict[str, bool]) -> None:
    """eta, s_noise, r and the forms of each; 3M in its published form, and both without our rule for long steps."""
    ours: dict[str, Any] = {"form": next(iter(form))} if form else {}
    ours |= {"steady": False} if name in ("dpmpp-2m-sde", "dpmpp-3m-sde") else {}
    start = LEVELS[0].mix(mixture().sample(ROWS), draw(ROWS, 2))
    source = Recorded()
    end = finish(mixture().estimate, find("solvers", name)(**options, **ours), LEVELS, start, source)
    draws = [z for _, _, z in source.kept]
    if name == "dpmpp-sde":  # they draw over the first part and over the whole
        for i in range(1, len(draws), 2):
            draws[i] = together(source.kept[i - 1], source.kept[i])
    there = theirs(function, start, draws, **options, **({"solver_type": "heun"} if "heun" in form else {}))
    assert float((end - there).abs().max()) < CLOSE


@pytest.mark.parametrize("form", ["heun", "euler"])
@pytest.mark.parametrize(
    "options", [{"s_churn": 2.0}, {"s_churn": 40.0, "s_tmin": 0.2, "s_tmax": 5.0, "s_noise": 1.003}]
)
def test_churn_as_in_k_diffusion(form: Any, options: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """EDM's algorithm 2 in both forms; they draw at every step, used or not."""
    names = {"s_churn": "churn", "s_tmin": "low", "s_tmax": "high", "s_noise": "s_noise"}
    solver = find("solvers", "edm")(**{names[key]: value for key, value in options.items()}, form=form)
    start = LEVELS[0].mix(mixture().sample(ROWS), draw(ROWS, 2))
    source = Recorded()
    end = finish(mixture().estimate, solver, LEVELS, start, source)
    drawn = {here: z for here, _, z in source.kept}
    draws = [drawn.get(level, torch.zeros(ROWS, 2, dtype=torch.float64)) for level in LEVELS[:-1]]
    assert 4 <= len(drawn) <= 8
    monkeypatch.setattr(torch, "randn_like", lambda *_: draws.pop(0))
    sigmas = torch.tensor(SIGMAS, dtype=torch.float64)
    there = getattr(sampling, f"sample_{form}")(model, start, sigmas, disable=True, **options)
    assert float((end - there).abs().max()) < CLOSE


MINE: list[tuple[str, dict[str, Any]]] = [
    ("dpm-2-a", {"eta": 0.7}),
    ("dpmpp-2m-sde", {"form": "heun"}),
    ("dpmpp-2s-a", {}),
    ("dpmpp-3m-sde", {}),
    ("dpmpp-sde", {}),
    ("edm", {"churn": 3.0}),
    ("er-sde", {}),
    ("er-sde", {"form": "published"}),
    ("euler-a", {"rule": "rectified", "eta": 0.7}),
    ("lcm", {}),
    ("sa-solver", {}),
    ("seeds-2", {"eta": 0.5}),
    ("seeds-3", {}),
    ("tcd", {}),
]


@pytest.mark.parametrize(("name", "settings"), MINE)
def test_the_path_does_not_matter_to_stochastic_solvers(name: str, settings: dict[str, Any]) -> None:
    """The same levels of log-SNR on three paths, with the same noise, give the same picture."""
    ends = []
    for family in FAMILIES:
        levels = [*ladder(path(family), 12), path(family).at(0.0)]
        x = levels[0].alpha * 10 * draw(ROWS, 2)
        ends.append(finish(mixture().estimate, find("solvers", name)(**settings), levels, x, Recorded()))
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-10)
    assert torch.allclose(ends[0], ends[2], rtol=0, atol=1e-10)


def end(name: str, **settings: Any) -> Tensor:
    start = LEVELS[0].mix(mixture().sample(ROWS), draw(ROWS, 2))
    return finish(mixture().estimate, find("solvers", name)(**settings), LEVELS, start, Recorded())


def test_one_stochastic_method_under_many_names() -> None:
    """First orders are one, and so are DPM++ SDE and SEEDS-2 at eta 1, 2M's exact form and SA's, and EDM without
    churn and Heun."""
    first = end("euler-a")
    pairs = [
        (first, end("ddim", eta=1.0)),
        (first, end("ddpm")),
        (first, end("sa-solver", predictor=1, corrector=0)),
        (first, end("er-sde", stages=1, scale="power")),
        (end("dpmpp-sde"), end("seeds-2")),
        (end("dpmpp-sde", r=0.3), end("seeds-2", r=0.3)),
        (end("dpmpp-2m-sde", form="heun", eta=0.49), end("sa-solver", predictor=2, corrector=0, tau=0.7)),
        (end("dpmpp-3m-sde", eta=0.49), end("sa-solver", predictor=3, corrector=0, tau=0.7)),
        (end("dpmpp-2m-sde", eta=0.0), end("dpmpp-2m")),
        (end("edm", churn=0.0), end("heun")),
        (end("euler-a", eta=0.0), end("euler")),
        (end("tcd", eta=0.0), end("euler")),
        (end("tcd", eta=1.0), end("lcm")),
    ]
    for number, (one, other) in enumerate(pairs):
        assert torch.allclose(one, other, rtol=0, atol=1e-11), number
    assert not torch.allclose(first, end("er-sde", stages=1), rtol=0, atol=1e-3)
    assert not torch.allclose(end("dpmpp-3m-sde"), end("dpmpp-3m-sde", form="published"), rtol=0, atol=1e-3)


# ComfyUI's forms, worked out by hand


def one_step(name: str, state: Any = None, **settings: Any) -> tuple[Tensor, Tensor, list[Tensor], float]:
    """(x, the state after a step from sigma 2.5 to 1.1, what was drawn, h)."""
    here, there = LEVELS[3], LEVELS[4]
    x, source = here.mix(mixture().sample(ROWS), draw(ROWS, 2)), Recorded()
    move = find("solvers", name)(**settings).step(mixture().estimate, x, here, there, state, source)
    return x, move.x, [z for _, _, z in source.kept], math.log(2.5 / 1.1)


def picture(x: Tensor, sigma: float) -> Tensor:
    return mixture().estimate(x, NoiseLevel(1.0, sigma)).x0


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_seeds_2_is_the_published_line(eta: float) -> None:
    r, s_noise = 0.4, 1.1
    x, found, (z1, z2), h = one_step("seeds-2", eta=eta, r=r, s_noise=s_noise)
    sigma, low = 2.5, 1.1
    inside = sigma * math.exp(-r * h)
    first = math.sqrt(1 - math.exp(-2 * eta * r * h)) * z1
    d = picture(x, sigma)
    y = inside / sigma * math.exp(-eta * r * h) * x + (1 - math.exp(-(1 + eta) * r * h)) * d + inside * s_noise * first
    mean = d + (picture(y, inside) - d) / (2 * r)
    z = math.exp(-eta * (1 - r) * h) * first + math.sqrt(1 - math.exp(-2 * eta * (1 - r) * h)) * z2
    wanted = low / sigma * math.exp(-eta * h) * x + (1 - math.exp(-(1 + eta) * h)) * mean + low * s_noise * z
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_seeds_3_is_the_published_line(eta: float) -> None:
    x, found, draws, h = one_step("seeds-3", eta=eta)
    sigma, d = 2.5, picture(x, 2.5)
    k = 1 + eta

    def slope(length: float) -> float:  # the weight of a slope over its length
        return 1 - (1 - math.exp(-length)) / length

    def state(part: float, change: Tensor, noise: Tensor) -> Tensor:
        level = sigma * math.exp(-part * h)
        return math.exp(-k * part * h) * x + (1 - math.exp(-k * part * h)) * d + change + level * noise

    noise, grown, last = torch.zeros_like(x), [], 0.0
    for part, z in zip((1 / 3, 2 / 3, 1.0), draws, strict=True):
        kept = math.exp(-eta * (part - last) * h)
        noise = kept * noise + math.sqrt(1 - kept * kept) * z
        grown, last = [*grown, noise], part
    one = picture(state(1 / 3, torch.zeros_like(x), grown[0]), sigma * math.exp(-h / 3))
    two = picture(state(2 / 3, 2 * slope(2 / 3 * k * h) * (one - d), grown[1]), sigma * math.exp(-2 * h / 3))
    wanted = state(1.0, 1.5 * slope(k * h) * (two - d), grown[2])
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


def test_er_sde_is_the_published_line() -> None:
    """Stage 3 with left sums of 200 points, as in the authors' code; the corrected form is near, and not the same."""
    pictures = [(draw(ROWS, 2, seed=5), 3.5), (draw(ROWS, 2, seed=6), 6.0)]
    x, found, (z,), _ = one_step("er-sde", tuple(pictures), form="published")

    def phi(s: float) -> float:
        return s * (math.exp(s**0.3) + 10)

    s, low, d = 2.5, 1.1, picture(x, 2.5)
    places = [low + i / 200 * (s - low) for i in range(200)]
    flat = sum(1 / phi(u) for u in places) * (s - low) / 200
    tilted = sum((u - s) / phi(u) for u in places) * (s - low) / 200
    first = (d - pictures[0][0]) / (s - 3.5)
    before = (pictures[0][0] - pictures[1][0]) / (3.5 - 6.0)
    second = 2 * (first - before) / (s - 6.0)
    r = phi(low) / phi(s)
    wanted = r * x + (1 - r) * d + (low - s + flat * phi(low)) * first
    wanted = wanted + ((low - s) ** 2 / 2 + tilted * phi(low)) * second + math.sqrt(low**2 - r * r * s * s) * z
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    _, corrected, _, _ = one_step("er-sde", tuple(pictures))
    assert 1e-4 < float((corrected - found).abs().max()) < 0.5
