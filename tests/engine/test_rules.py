"""Rules of drawing that have changed: today's, and the first, by which old records are drawn again."""

from __future__ import annotations

import pytest
import torch

from drawing import draw
from unnoise.engine.engine import Engine
from unnoise.engine.request import Request


def test_solvers_are_steady_by_todays_rules_and_where_it_is_written() -> None:
    assert Request("", solver="sa-solver").method().steady  # type: ignore[attr-defined]
    assert not Request("", solver="sa-solver", rules=1).method().steady  # type: ignore[attr-defined]
    assert Request("", solver="sa-solver(steady=true)", rules=1).method().steady  # type: ignore[attr-defined]
    assert not Request("", solver="heun", rules=1).method().steady  # type: ignore[attr-defined]
    assert not Request("", solver="lms(steady=false)").method().steady  # type: ignore[attr-defined]
    assert not Request("", solver="repaint(2, dpmpp-2m)", rules=1).method().inner.steady  # type: ignore[attr-defined]
    assert not hasattr(Request("", solver="euler", rules=1).method(), "steady")


@pytest.mark.parametrize(("spacing", "changed"), [("kl-optimal", True), ("trailing", False)])
def test_the_first_rules_extrapolate_over_long_steps(spacing: str, changed: bool, engine: Engine) -> None:
    def end(solver: str, rules: int) -> torch.Tensor:
        return draw(engine, ["red apple"], [1], solver=solver, spacing=spacing, steps=6, rules=rules)

    new, old = (end("dpmpp-2m-sde", rules) for rules in (2, 1))
    assert torch.equal(old, end("dpmpp-2m-sde(steady=false)", 2))
    assert torch.equal(new, old) != changed
