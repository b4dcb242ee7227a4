"""Which solvers and settings are tried, and what laws ask of them to know whom they are about."""

from __future__ import annotations

from typing import Any

from laws.world import Gaussian, Rigged, draw, finish, ladder, path
from unnoise.core.registry import find
from unnoise.core.solver import Solver

SETTINGS: dict[str, list[dict[str, Any]]] = {  # beside the defaults, which are always tried
    "ddim": [{"eta": 0.5}, {"eta": 1.0}],
    "ddpm": [{"variance": "large"}],
    "deis": [{"points": 2}, {"singlestep_start": True}],
    "dpm-adaptive": [{"pair": 12}],
    "dpm-solver": [{"order": 3}, {"order": 3, "predicts": "x0"}],
    "dpm-2-a": [{"eta": 0.5, "rule": "rectified"}],
    "dpmpp-2m-sde": [{"eta": 2.0, "form": "heun"}],
    "dpmpp-3m": [{"published": True}],
    "dpmpp-3m-sde": [{"form": "published"}],
    "edm": [{"churn": 10.0, "form": "euler"}],
    "er-sde": [{"scale": "power"}, {"form": "published"}],
    "euler-a": [{"eta": 0.5, "rule": "rectified"}],
    "lms": [{"points": 3}],
    "res-multistep": [{"points": 4}],
    "sa-solver": [{"predictor": 2, "corrector": 2, "simple": True}, {"predictor": 1, "corrector": 0}],
    "seeds-2": [{"eta": 0.5, "r": 0.7, "form": "phi-2"}],
    "tcd": [{"eta": 1.0}],
    "unipc": [{"points": 3}, {"variant": "bh1"}, {"points": 3, "predicts": "eps", "singlestep_start": True}],
}
GROWS = ("large",)  # settings whose marginals are wider than the path's by design, in the limit of few steps


def solvers(name: str) -> list[Solver]:
    cls = find("solvers", name)
    return [cls(**settings) for settings in ({}, *SETTINGS.get(name, []))]


def draws_noise(solver: Solver) -> bool:
    noise = Rigged(40)
    finish(Gaussian().estimate, solver, ladder(path("flow"), 8), draw(1, 40), noise)
    return noise.count > 0


def is_adaptive(solver: Solver) -> bool:
    """Whether it chooses its own steps between the levels of the run."""
    return getattr(solver, "adaptive", False)


def keeps_to_the_levels(solver: Solver) -> bool:
    return not is_adaptive(solver)


def claims_an_order(solver: Solver) -> bool:
    return solver.order is not None


def claims_an_order_without_noise(solver: Solver) -> bool:
    return claims_an_order(solver) and not draws_noise(solver)


def draws_after_the_network(solver: Solver) -> bool:
    """Churn is added before the network is asked, which takes it out again."""
    return not getattr(solver, "churn", 0)


def keeps_the_marginals(solver: Solver) -> bool:
    return getattr(solver, "variance", None) not in GROWS and keeps_to_the_levels(solver)


def has_long_steps(solver: Solver) -> bool:
    """Whether a long step of it would magnify what estimates are wrong by, and ``steady`` keeps it from that."""
    return hasattr(solver, "steady")


def values(solver: Solver) -> int:
    """How many estimates a step of such a solver looks at."""
    known = [getattr(solver, name) for name in ("points", "stages", "predictor") if hasattr(solver, name)]
    return known[0] if known else {"dpmpp-3m": 3, "dpmpp-3m-sde": 3, "plms": 4}.get(solver.name, 2)
