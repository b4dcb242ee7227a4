"""Curves: they go through their points as scipy's do; the fitted ones end nearer, and the solver is the solver."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from laws.world import draw, finish, mixture, path
from unnoise.core.condition import Condition
from unnoise.core.guidance import Asks, Bound, Guidance, Parts, bind
from unnoise.core.level import NoiseLevel
from unnoise.core.mixture import Mixture
from unnoise.core.notation import make
from unnoise.core.registry import find
from unnoise.errors import UnnoiseError
from unnoise.spacings.curve import Curve, through
from unnoise.study.descent import Batch, Fit, descend, end_of, errors, on_curve

POINTS = [1.0, 0.93, 0.6, 0.58, 0.2, 0.05]
COUNTS = (4, 5, 6)


# the curve


@pytest.mark.parametrize("points", [[*POINTS, 0.0], [1.0, 0.0], [1.0, 0.2, 0.0], [0.0, 1.0, 1.0, 0.5], [3.0, 1.0, 2.0]])
def test_it_is_scipys(points: list[float]) -> None:
    """Also where the values rise, stand or turn, which those of a spacing never do."""
    theirs = PchipInterpolator([i / (len(points) - 1) for i in range(len(points))], points)
    for i in range(101):
        assert math.isclose(through(points, i / 100), theirs(i / 100), abs_tol=1e-12)


@pytest.mark.parametrize("on", ["flow", "ddpm-linear"])
def test_as_many_steps_as_points_visit_the_points(on: str) -> None:
    where = path(on)
    for steps, step in ((6, 1), (3, 2)):
        levels = Curve(POINTS).levels(where, steps)
        places = [(float(where.time_of(level)) - where.t_min) / (1 - where.t_min) for level in levels[:-1]]
        assert places == pytest.approx(POINTS[::step], abs=1e-9)


def test_one_point_is_a_straight_line() -> None:
    for on in ("flow", "ddpm-linear"):
        line = find("spacings", "sgm-uniform")().levels(path(on), 9)
        for one, other in zip(Curve().levels(path(on), 9), line, strict=True):
            assert tuple(one) == pytest.approx(tuple(other), abs=1e-12)


@pytest.mark.parametrize(
    "times", [[[1]], ["a"], [], [1, 1], [0.5, 0.7], [1, 0], [1.2, 0.5], [1, float("nan")], "abc", [0.5] * 1001]
)
def test_what_is_no_curve_is_refused(times: Sequence[float]) -> None:
    with pytest.raises(UnnoiseError, match=r"times|curve"):
        Curve(times)


# the descent


@pytest.mark.parametrize("on", ["flow", "ddpm-linear", "ve"])
def test_the_solver_is_dpmpp_2m(on: str) -> None:
    where, x = path(on), draw(16, 2)
    levels = on_curve(where, [torch.tensor(t, dtype=torch.float64) for t in (*POINTS, 0.0)], 7)
    plain = Curve(POINTS).levels(where, 7)
    for one, other in zip(levels, plain, strict=True):
        assert float(one.sigma) == pytest.approx(float(other.sigma), rel=1e-12)
    x = x * plain[0].sigma
    wanted = finish(mixture().estimate, find("solvers", "dpmpp-2m")(), plain, x)
    assert torch.allclose(end_of(mixture().estimate, levels, x), wanted, rtol=1e-9, atol=1e-9)
    euler = finish(mixture().estimate, find("solvers", "euler")(), plain, x)
    assert not torch.allclose(euler, wanted, rtol=1e-4, atol=1e-4), "the control"


def guided(guidance: Guidance, rows: int) -> Bound:
    """A mixture whose second half is asked for, under guidance, with memory if that has one."""
    world = mixture()
    part = Mixture(world.weights[1:] / world.weights[1:].sum(), world.means[1:], world.covariances[1:])

    def evaluate(x: Tensor, here: NoiseLevel, there: NoiseLevel | None, asks: Asks) -> Parts:
        return {name: (part if name == "cond" else world).estimate(x, here) for name in asks}

    nothing = Condition(torch.zeros(rows, 1, 1), torch.ones(rows, 1, dtype=torch.bool), torch.zeros(rows, 1))
    return bind(guidance, evaluate, {"cond": nothing, "uncond": nothing})


GUIDANCES = (
    "apg(scale=3, momentum=-0.5)",
    "cfg-zero(scale=3)",
    "cfg++",
    "interval(cfg(3), 0.3, 3)",
    "ramp(cfg(3), cosine)",
)


@pytest.mark.parametrize("notation", GUIDANCES)
def test_it_is_guided_as_a_run_is(notation: str) -> None:
    """With what guidance remembers from one step to the next, and what makes two halves of an estimate."""
    flow, x = path("flow"), draw(16, 2)
    bound = guided(make("guidances", notation), len(x))
    levels = on_curve(flow, [torch.tensor(t, dtype=torch.float64) for t in (*POINTS, 0.0)], 7)
    wanted = finish(bound, find("solvers", "dpmpp-2m")(), Curve(POINTS).levels(flow, 7), x)
    assert torch.allclose(end_of(bound, levels, x), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("notation", ["cfg(3)", "apg(scale=3, momentum=-0.5)", "ramp(cfg(3), cosine)", "ramp(cfg(3))"])
def test_gradients_are_those_of_the_levels(notation: str) -> None:
    """Against differences, through all of a run: levels, network, guidance, solver."""
    x = draw(8, 2)
    bound = guided(make("guidances", notation), len(x))

    def loss(middle: Tensor) -> Tensor:
        points = [middle.new_tensor(1.0), middle[0], middle[1], middle.new_tensor(0.0)]
        return end_of(bound, on_curve(path("flow"), points, 5), x).square().sum()

    assert torch.autograd.gradcheck(loss, torch.tensor([0.7, 0.3], dtype=torch.float64, requires_grad=True))


def batches(seeds: Sequence[int], mixed: bool = False) -> list[Batch]:
    """Starts at pure noise and the mixture's own ends; or, mixed up, the ends of other rows."""
    world, flow = mixture(), path("flow")
    found = []
    for seed in seeds:
        x = draw(64, 2, seed=seed)
        end = finish(world.estimate, find("solvers", "dpmpp-2m")(), Curve().levels(flow, 400), x)
        found.append(Batch(world.estimate, x, end.roll(1, 0) if mixed else end))
    return found


def off(times: Sequence[float], fresh: Sequence[Batch]) -> float:
    """Geometric mean of the errors over rows and numbers of steps."""
    made = [Curve(times).levels(path("flow"), n) for n in COUNTS]
    dpmpp = find("solvers", "dpmpp-2m")()
    found = [errors(finish(each.denoise, dpmpp, levels, each.start), each.end) for each in fresh for levels in made]
    return float(torch.cat(found).log().mean().exp())


@pytest.mark.slow
def test_a_fitted_curve_ends_nearer() -> None:
    """On noise that it has not seen; fitted to ends that are not its own it does not."""
    start, fresh = [1.0, 0.8, 0.6, 0.4, 0.2], batches([7, 8])
    *_, last = descend(path("flow"), batches([1, 2]), start, COUNTS, 60)
    *_, control = descend(path("flow"), batches([1, 2], mixed=True), start, COUNTS, 60)
    before, fitted, mixed = (off(times, fresh) for times in (start, last.times, control.times))
    assert fitted < 0.8 * before
    assert mixed > 0.9 * before
    assert last.times[0] == 1
    assert all(a > b > 0 for a, b in itertools.pairwise(last.times))


def test_a_descent_can_be_followed_and_is_the_same_again() -> None:
    first, again = (list(descend(path("flow"), batches([1]), [1.0, 0.5], COUNTS, 4, seed=3)) for _ in range(2))
    assert first == again
    assert [fit.index for fit in first] == [1, 2, 3, 4]
    assert all(isinstance(fit, Fit) and fit.num_steps in COUNTS and fit.error > 0 for fit in first)


def test_what_cannot_be_fitted_is_refused() -> None:
    known = batches([1])
    for times, counts, iterations in (
        ([1.0], COUNTS, 1),
        ([1.0, 0.5], (), 1),
        ([1.0, 0.5], (1,), 1),
        ([1.0, 0.5], (4,), 0),
    ):
        with pytest.raises(UnnoiseError, match="nothing to fit"):
            list(descend(path("flow"), known, times, counts, iterations))

    def broken(x: Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> object:
        return mixture().estimate(x * float("nan"), here)

    with pytest.raises(UnnoiseError, match="no finite gradient"):
        list(descend(path("flow"), [known[0]._replace(denoise=broken)], [1.0, 0.5], (4,), 2))  # type: ignore[arg-type]
