"""How rough a picture is that a solver draws on a spacing, against a smooth run: what burns, and where.

    python bench/roughness.py                                        the whole cross, its worst rows first
    python bench/roughness.py --every 20                             every twentieth of it
    python bench/roughness.py --steps 20 --solvers sa-solver --spacings linspace kl-optimal --rules 1

Every run draws the same two pictures with the default model. Its roughness is the texture of what comes out, over that
of 200 steps of ``dpmpp-2m`` on ``log-snr`` from the same noise, the mean of the two: 1 is as smooth. Solvers that draw
noise draw other pictures, so that a distance would tell nothing; texture is what both have in common. Texture is the
mean difference between neighbouring pixels: emoji are flat shapes, and what burns has grain all over. What is measured
is kept in ``--out``, one line a run, and not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.core.registry import index
from unnoise.engine.engine import Engine, finished
from unnoise.engine.load import load_engine
from unnoise.engine.request import RULES

PROMPTS, SEEDS = ["red apple", "cat face"], [1, 2]
COUNTS, LONG = (1, 2, 3, 5, 20), (1, 2, 3, 5, 20, 50)
UNTOLD = ("custom",)  # spacings that are lists which somebody must write
LIMIT = 1.5  # one step draws 1.37, which is the model's own guess from pure noise; the weakest burn known is 1.73


class Case(NamedTuple):
    """One run: a solver and a spacing by name, and how many steps."""

    solver: str
    spacing: str
    steps: int


EXCEPTIONS: dict[Case, tuple[float, str]] = {  # how rough they may be, and why
    Case("seeds-3", "beta-sigma", 3): (2.5, "what two looks within one step of 5.5 differ by is the picture itself"),
}


def limit(case: Case) -> tuple[float, str]:
    """How rough it may be, and for a known exception why."""
    return EXCEPTIONS.get(case, (LIMIT, ""))


def cross(counts: Sequence[int] = COUNTS, every: int = 1) -> list[Case]:
    """All solvers on all spacings, or every so manieth of them: prime to the table's sides, so that all are met."""
    spacings = [name for name in index("spacings") if name not in UNTOLD]
    return [Case(a, b, n) for n in counts for a in index("solvers") for b in spacings][::every]


def texture(pictures: Tensor) -> Tensor:
    """(N,) the mean difference between neighbouring pixels, down and across."""
    down, across = pictures.diff(dim=-2), pictures.diff(dim=-1)
    return down.abs().mean((1, 2, 3)) + across.abs().mean((1, 2, 3))


@cache
def model() -> Engine:
    return load_engine(None, "cpu")


@torch.inference_mode()
def drawn(case: Case, rules: int = RULES) -> Tensor:
    """The texture of the pictures of a run."""
    settings = {"solver": case.solver, "spacing": case.spacing, "steps": case.steps, "rules": rules}
    requests = [model().request(prompt, seed=seed, **settings) for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    done = finished(model().draw(requests))
    return texture(model().model.pixels(torch.cat([each.latents for each in done if each.latents is not None])))


@cache
def smooth() -> Tensor:
    return drawn(Case("dpmpp-2m", "log-snr", 200))


def roughness(case: Case, rules: int = RULES) -> float:
    return float((drawn(case, rules) / smooth()).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--solvers", nargs="+")
    parser.add_argument("--spacings", nargs="+")
    parser.add_argument("--rules", type=int, default=RULES, help="1: without the rule for long steps")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--show", type=int, default=20, help="how many of the worst rows to print")
    parser.add_argument("--out", type=Path, default=Path("runs/roughness.jsonl"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in args.out.read_text("utf-8").splitlines()] if args.out.exists() else []
    known = {(Case(*row[:3]), row[3]): float(row[4]) for row in rows}
    cases = [
        case
        for case in cross(args.steps, args.every)
        if case.solver in (args.solvers or [case.solver]) and case.spacing in (args.spacings or [case.spacing])
    ]
    with args.out.open("a", encoding="utf-8") as file:
        for done, case in enumerate(cases, 1):
            if (case, args.rules) not in known:
                known[case, args.rules] = roughness(case, args.rules)
                file.write(json.dumps([*case, args.rules, known[case, args.rules]]) + "\n")
                file.flush()
            print(f"\r{done} of {len(cases)}", end="", file=sys.stderr)
    worst = sorted(cases, key=lambda case: -known[case, args.rules])
    print(f"\n{torch.get_num_threads()} threads; {sum(known[c, args.rules] > limit(c)[0] for c in cases)} too rough")
    for case in worst[: args.show]:
        rough = known[case, args.rules]
        print(f"{rough:8.2f}  {case.solver:20} {case.spacing:18} {case.steps:3} steps  {limit(case)[1]}")


if __name__ == "__main__":
    main()
