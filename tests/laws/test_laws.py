"""Every law over every registered method."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from laws import denoisers, noise, objectives, paths, spacings
from laws.asked import KINDS, Law, cases_of
from unnoise.core.noise import NoiseSource
from unnoise.core.registry import find, index
from unnoise.core.solver import Solver


def cases() -> Iterator[Any]:
    """(law, thing), one for each setting of each method in the registry and each law that says something about it."""
    for kind in KINDS:
        for name in index(kind):
            yield from (
                pytest.param(law, thing, id=f"{kind}-{name}-{i}-{law.__name__}")
                for i, law, thing in cases_of(kind, name)
            )


CASES = list(cases())


@pytest.mark.parametrize(("law", "thing"), CASES)
def test_law(law: Law, thing: Any) -> None:
    law(thing)


@pytest.mark.parametrize("law", [law for laws, _ in KINDS.values() for law in laws], ids=lambda law: law.__name__)
def test_no_law_passes_by_returning(law: Law) -> None:
    """A law ends where its last assertion does, and there is something that it is about."""
    assert not leaves_early(law)
    assert any(case.values[0] is law for case in CASES)


def leaves_early(law: Law) -> bool:
    """Whether the law itself, not a function inside it, has a ``return``."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(law))).body
    waiting: list[ast.AST] = list(ast.iter_child_nodes(body))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return):
            return True
        if not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))
    return False


def test_a_law_that_passes_by_returning_is_seen() -> None:
    def hurried(thing: Any) -> None:
        if thing is None:
            return
        assert thing

    def calm(thing: Any) -> None:
        def inside() -> bool:
            return bool(thing)

        assert inside()

    assert leaves_early(hurried)
    assert not leaves_early(calm)


@pytest.mark.parametrize("law", noise.LAWS)
def test_noise(law: Law) -> None:
    law(NoiseSource)


@pytest.mark.parametrize("prediction", index("predictions"))
@pytest.mark.parametrize("path", index("paths"))
@pytest.mark.parametrize("law", denoisers.LAWS)
def test_denoiser(law: Callable[..., None], path: str, prediction: str) -> None:
    law(find("paths", path)(), find("predictions", prediction)())


def test_leading_is_as_published() -> None:
    spacings.leading_is_as_published(find("spacings", "leading"))


def test_paths_are_as_published() -> None:
    paths.zero_snr_is_as_published(find("paths", "zero-snr"))
    paths.vp_is_its_equation(find("paths", "vp"), find("paths", "sub-vp"))


@pytest.mark.parametrize("name", ["uniform-weight", "min-snr", "edm-weight", "p2", "velocity-weight"])
@pytest.mark.parametrize("law", [objectives.is_finite_at_the_ends])
def test_weighting(law: Law, name: str) -> None:
    law(find("objectives", name)())


@pytest.mark.parametrize("name", ["min-snr", "edm-weight", "p2"])
def test_weighting_of_x0(name: str) -> None:
    objectives.counts_x0_alike(find("objectives", name)())


def test_weighting_of_velocity() -> None:
    objectives.counts_x0_alike(find("objectives", "velocity-weight")(1e-9))
    objectives.is_the_velocity_s_error(find("objectives", "velocity-weight"))
    with pytest.raises(AssertionError):
        objectives.is_the_velocity_s_error(lambda least: find("objectives", "uniform-weight")())


@pytest.mark.parametrize("name", ["uniform-times", "logit-normal", "log-normal-sigma"])
def test_times_are_in_range(name: str) -> None:
    objectives.times_are_in_range(find("objectives", name)())


def test_times_and_weights_are_as_published() -> None:
    objectives.min_snr_is_as_published(find("objectives", "min-snr"))
    objectives.p2_is_as_published(find("objectives", "p2"))
    objectives.logit_normal_is_as_published(find("objectives", "logit-normal"))
    objectives.log_normal_sigma_is_as_published(find("objectives", "log-normal-sigma"))
    objectives.uniform_times_are_uniform(find("objectives", "uniform-times"))


def test_edm_weight_makes_edm_s_loss_even() -> None:
    """weight x c_out^2 = 1: with EDM's own prediction no level counts more than another."""
    level = objectives.levels(find("paths", "ve")())
    weight = find("objectives", "edm-weight")(0.7).weight(level, find("predictions", "edm")(0.7))
    assert torch.allclose(weight, torch.ones_like(weight), rtol=1e-12)


@pytest.mark.parametrize("kind", ["paths", "predictions", "spacings", "solvers", "guidances"])
def test_registry_is_whole(kind: str) -> None:
    """Every file of a kind is found; no two methods share a name or alias; menus have a line to show."""
    entries = index(kind)
    names = [name for entry in entries.values() for name in (entry.name, *entry.aliases)]
    assert entries
    assert len(names) == len(set(names))
    for entry in entries.values():
        assert entry.summary, f"{entry.name} has no docstring"
        for name in (entry.name, *entry.aliases):
            assert find(kind, name).name == entry.name
        assert find(kind, entry.name).kind == kind


@pytest.mark.parametrize("name", index("solvers"))
def test_solver_table_is_whole(name: str) -> None:
    """What the table of solvers says without importing them is what they are, and each says when to choose it."""
    facts, solver = index("solvers")[name].facts, find("solvers", name)
    assert facts.get("use") == solver.use
    assert 10 <= len(solver.use) <= 100
    for key in ("order", "stochastic", "evaluations"):
        assert facts.get(key, getattr(Solver, key)) == getattr(solver, key)
