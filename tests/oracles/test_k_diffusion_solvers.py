"""Deterministic solvers step by step against k-diffusion, their weights against quadrature, and one against another.

k-diffusion works in x/alpha; ours run on the flow path, so that the change of variable is tested with them. Both
compute in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch
from scipy import integrate
from torch import Tensor

from laws.world import FAMILIES, Gaussian, draw, finish, ladder, mixture, path
from oracles.k_diffusion import sampling
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.multistep import halved, multistep, phi, weights
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import find
from unnoise.core.sample import sample
from unnoise.core.solver import Denoise, Move, Solver
from unnoise.solvers.dpm_adaptive import DPMAdaptive
from unnoise.solvers.dpm_solver import DPMSolver
from unnoise.solvers.dpmpp_3m import DPMpp3M
from unnoise.solvers.ipndm import even
from unnoise.solvers.lms import LMS
from unnoise.solvers.res_multistep import RESMultistep
from unnoise.spacings.karras import Karras

CLOSE = 1e-9  # their quadratures are of 1e-4, but exact for polynomials
ROWS = 16


def solver(name: str, **settings: Any) -> Solver:
    made: Solver = find("solvers", name)(**settings)
    return made


def model(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
    return mixture().estimate(x, NoiseLevel(1.0, float(sigma[0]))).x0


def start(sigma: float, rows: int = ROWS) -> Tensor:
    return NoiseLevel(1.0, sigma).mix(mixture().sample(rows), draw(rows, 2))


def on_flow(method: Solver, sigmas: Sequence[float], x: Tensor, denoise: Denoise | None = None) -> list[Tensor]:
    """The states of a run over the flow path's levels of these sigma/alpha, divided by alpha."""
    levels = [path("flow").onto(NoiseLevel(1.0, sigma)) if sigma else NoiseLevel(1.0, 0.0) for sigma in sigmas]
    noise = NoiseSource(range(len(x)), (2,), torch.float64)
    steps = sample(denoise or mixture().estimate, method, levels, float(levels[0].alpha) * x, noise)
    return [step.run.x / step.there.alpha for step in steps]


THEIRS: dict[str, tuple[Callable[..., Tensor], dict[str, Any], Solver]] = {
    "dpm-2": (sampling.sample_dpm_2, {}, solver("dpm-2")),
    "lms-4": (sampling.sample_lms, {}, solver("lms")),
    "lms-2": (sampling.sample_lms, {"order": 2}, solver("lms", points=2)),
    "dpmpp-2s": (sampling.sample_dpmpp_2s_ancestral, {"eta": 0.0}, solver("dpmpp-2s")),
    "dpmpp-3m": (
        sampling.sample_dpmpp_3m_sde,
        {"eta": 0.0, "noise_sampler": lambda *_: None},
        DPMpp3M(published=True, lower_order_final=False),
    ),
}


@pytest.mark.parametrize("name", THEIRS)
def test_k_diffusion(name: str) -> None:
    """Karras' levels to clean data: every state of the run, and the end."""
    sample_theirs, options, method = THEIRS[name]
    sigmas = [float(level.sigma_hat) for level in Karras().levels(path("ve"), 12)]
    x, states = start(sigmas[0]), []
    end = sample_theirs(
        model,
        x,
        torch.tensor(sigmas, dtype=torch.float64),
        disable=True,
        callback=lambda i: states.append(i["x"]),
        **options,
    )
    for theirs, ours in zip([*states[1:], end], on_flow(method, sigmas, x), strict=True):
        assert ((theirs - ours).abs() / (1 + ours.abs())).max() < CLOSE


@pytest.mark.parametrize("order", [1, 2, 3])
def test_k_diffusion_single_steps(order: Any) -> None:
    """DPM-Solver-1, -2 and -3, as its class has them."""
    theirs = sampling.DPMSolver(model)
    t = -torch.tensor([5.0, 2.0, 0.7, 0.1], dtype=torch.float64).log()
    x = start(5.0)
    states = on_flow(DPMSolver(order), [5.0, 2.0, 0.7, 0.1], x)
    for here, there, ours in zip(t[:-1], t[1:], states, strict=True):
        x, _ = getattr(theirs, f"dpm_solver_{order}_step")(x, here, there)
        assert (x - ours).abs().max() < CLOSE


@pytest.fixture
def doubles() -> Iterator[None]:
    """Their adaptive solver makes its tensors of sigma itself, of the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("pair", [23, 12])
@pytest.mark.parametrize("pid", [(0.0, 1.0, 0.0), (0.3, 0.4, 0.1)])
def test_k_diffusion_adaptive(pair: Any, pid: tuple[float, float, float], doubles: None) -> None:
    """The same tries, kept and rejected, and the same end. One picture: theirs takes its error over the whole batch."""
    x, calls = start(20.0, 1), []
    p, i, d = pid

    def counted(x: Tensor, here: NoiseLevel, there: NoiseLevel) -> Estimate:
        calls.append(here)
        return mixture().estimate(x, here)

    end, info = sampling.sample_dpm_adaptive(
        model, x, 0.03, 20.0, disable=True, order=pair % 10, pcoeff=p, icoeff=i, dcoeff=d, h_init=6.0, return_info=True
    )
    states = on_flow(DPMAdaptive(pair, p=p, i=i, d=d, h_init=6.0), [20.0, 0.03], x, counted)
    assert len(states) == info["n_accept"]
    assert len(calls) == info["n_accept"] + (pair % 10 - 1) * info["steps"]
    if d == 0:
        assert info["n_reject"] > 0, "the first step is too long"
    assert (states[-1] - end).abs().max() < CLOSE


def test_difference_adaptive_error() -> None:
    """Company that is easy shortens no step of a hard picture here; theirs takes the mean, and longer steps."""
    hard = start(20.0, 1)
    easy = (hard * 0).expand(7, 2)
    batch = torch.cat([hard, easy])
    settings = {"rtol": 1e-3, "atol": 1e-3}
    counts: dict[str, list[int]] = {"ours": [], "theirs": []}
    for x in (hard, batch):
        counts["ours"].append(len(on_flow(DPMAdaptive(**settings), [20.0, 0.03], x, lonely)))
        _, info = sampling.sample_dpm_adaptive(lonely_model, x, 0.03, 20.0, disable=True, return_info=True, **settings)
        counts["theirs"].append(info["n_accept"])
    assert counts["ours"][0] == counts["ours"][1]
    assert counts["theirs"][0] > counts["theirs"][1]


def lonely(x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
    """One Gaussian around 0: the state 0 stays there, with no error at all."""
    return Gaussian().estimate(x, here)


def lonely_model(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
    return Gaussian().estimate(x, NoiseLevel(1.0, float(sigma[0]))).x0


def test_adaptive_error_follows_the_tolerance() -> None:
    """A hundredth of the tolerance: the error falls with it, and a stop on the way is met exactly."""
    x = start(20.0)
    end = mixture().endpoint(x, NoiseLevel(1.0, 20.0), NoiseLevel(1.0, 0.05))
    errors, counts = [], []
    for tolerance in (1e-2, 1e-3, 1e-4):
        states = on_flow(DPMAdaptive(rtol=tolerance, atol=tolerance), [20.0, 1.0, 0.05], x)
        errors.append(float((states[-1] - end).norm(dim=1).mean()))
        counts.append(len(states))
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert counts[0] < counts[1] < counts[2]


# the weights


def test_weights_are_the_integrals() -> None:
    """Against adaptive quadrature of Lagrange's polynomials, on uneven nodes, growing and decaying."""
    for nodes in ([0.0], [0.0, -0.7], [0.0, 1.0], [0.0, -1.3, -1.9], [0.0, -0.4, -2.0, -2.3], [0.0, -0.5, -1.1, 1.0]):
        for z in (-9.0, -2.5, -1.9, -0.3, 0.0, 1e-9, 0.4, 2.1, 7.0):
            for j, weight in enumerate(weights(nodes, z)):

                def part(u: float, j: int = j, z: float = z, nodes: list[float] = nodes) -> float:
                    others = (n for k, n in enumerate(nodes) if k != j)
                    return math.exp((1 - u) * z) * math.prod((u - n) / (nodes[j] - n) for n in others)

                wanted = integrate.quad(part, 0, 1, epsabs=1e-13, epsrel=1e-13)[0]
                assert math.isclose(weight, wanted, rel_tol=1e-11, abs_tol=1e-12)


@pytest.mark.parametrize("z", [1e-300, -1e-12, 1e-5, -0.1, 1.9999, 2.0001, -40.0, 100.0])
def test_phi_loses_no_digits(z: float) -> None:
    """Against phi_k = sum z^j / (j + k)! in 80 digits; the textbook line cancels to nothing where z is small."""
    with localcontext(prec=80):
        for k in range(6):
            wanted = sum(Decimal(z) ** j / math.factorial(j + k) for j in range(500))
            assert math.isclose(phi(k, z), float(wanted), rel_tol=2e-13), k
    assert abs((math.exp(-1e-12) - 1) / -1e-12 - 1) > 1e-5, "the textbook line"


def test_even_steps_have_the_weights_of_adams() -> None:
    for points, wanted in (
        (2, [3 / 2, -1 / 2]),
        (3, [23 / 12, -16 / 12, 5 / 12]),
        (4, [55 / 24, -59 / 24, 37 / 24, -9 / 24]),
    ):
        assert even([0.0] * points, 5.0) == pytest.approx(wanted, rel=1e-13)


def test_difference_brackets_of_ipndm_v() -> None:
    """ipndm_v, in zju-pi's code and all that took it over, has a bracket out of place: its weights of three values are
    right for even steps alone. Put right they are those of ``lms``, which is what the name means here."""

    def published(h: float, before: float, first: float, mended: bool) -> list[float]:
        part = h / (3 * (h + before))
        ratio = h * (h + before) / (before * (before + first))
        temp = (1 - part) * ratio / 2 if mended else (1 - part * ratio) / 2
        return [1 + h / before / 2 + temp, -h / before / 2 - (1 + before / first) * temp, temp * before / first]

    for h, before, first in ((1.0, 1.0, 1.0), (1.0, 2.0, 3.0), (0.4, 0.5, 0.9)):
        ours = weights([0.0, -before / h, -(before + first) / h], 0.0)
        assert published(h, before, first, mended=True) == pytest.approx(ours, rel=1e-12)
        if h != before:
            assert abs(published(h, before, first, mended=False)[2] - ours[2]) > 0.05
    assert find("solvers", "ipndm_v") is LMS


# one against another

SOLVERS = (
    "deis",
    "dpm-adaptive",
    "dpm-solver",
    "dpmpp-2s",
    "dpmpp-3m",
    "exp-heun",
    "gradient-estimation",
    "ipndm",
    "lms",
)
SOLVERS = (*SOLVERS, "plms", "res-multistep", "unipc")


@pytest.mark.parametrize("name", SOLVERS)
def test_the_path_does_not_matter_here(name: str) -> None:
    """The same levels of log-SNR on three paths give the same picture."""
    ends = []
    for family in FAMILIES:
        levels = [*ladder(path(family), 10), path(family).at(0.0)]
        ends.append(finish(mixture().estimate, solver(name), levels, levels[0].alpha * 10 * draw(16, 2)))
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-10)
    assert torch.allclose(ends[0], ends[2], rtol=0, atol=1e-10)


class Midpoint(RESMultistep):
    """Exponential Adams of two points with the slope's weight cut short."""

    def step(self, denoise: Denoise, x: Tensor, here: NoiseLevel, there: NoiseLevel, state: Any, noise: Any) -> Move:
        return multistep(denoise, x, here, there, state, "x0", 2, halved)


SAME = {
    "dpm-2 is dpm-solver of order 2": ("dpm-2", {}, "dpm-solver", {"order": 2}),
    "dpm-solver of order 1 is euler": ("dpm-solver", {"order": 1}, "euler", {}),
    "dpm-solver of order 2 on x0 is dpmpp-2s": ("dpm-solver", {"predicts": "x0"}, "dpmpp-2s", {}),
    "one point is euler, in any form": ("deis", {"points": 1}, "lms", {"points": 1}),
    "dpmpp-3m is exponential Adams of 3 points": ("dpmpp-3m", {}, "res-multistep", {"points": 3}),
    "gradient estimation of 3/2 is ipndm of 2": ("gradient-estimation", {"gamma": 1.5}, "ipndm", {"points": 2}),
}


@pytest.mark.parametrize("why", SAME)
def test_one_method_in_two_files(why: str) -> None:
    one, with_one, other, with_other = SAME[why]
    levels = ladder(path("flow"), 9)
    ends = [
        finish(mixture().estimate, solver(name, **settings), levels, levels[0].alpha * 10 * draw(16, 2))
        for name, settings in ((one, with_one), (other, with_other))
    ]
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-12)


def test_two_m_is_exponential_adams_cut_short() -> None:
    """DPM-Solver++(2M) weighs the slope of two pictures with phi_1 / 2 where the exact weight is phi_2."""
    levels = [*Karras().levels(path("ve"), 9)]
    x = levels[0].sigma * draw(16, 2)
    wanted, found, exact = (
        finish(mixture().estimate, each, levels, x) for each in (solver("dpmpp-2m"), Midpoint(), RESMultistep())
    )
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    assert (exact - wanted).abs().max() > 1e-3
