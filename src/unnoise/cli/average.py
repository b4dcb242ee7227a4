"""``unnoise average``: a model with averages of another width, from the checkpoints of a training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import tyro

from unnoise.core import checks
from unnoise.errors import UnnoiseError
from unnoise.notes import tell


def average(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    width: float,
    out: Path,
    error: float = 0.1,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Make a model from a training's weights, averaged over a shorter or longer part of it than its own averages.

    Args:
        run: the training's folder; it need not be finished.
        width: relative width of the average, between 0 and 0.28 of the training.
        out: the model folder to write.
        error: the largest acceptable error of the fitted profile, relative to the profile.
        as_json: print the result as one line of JSON.
    """
    from unnoise.cli.main import parse
    from unnoise.cli.record import found_again, read_run
    from unnoise.cli.train import suited
    from unnoise.core.registry import find
    from unnoise.files import alone
    from unnoise.training import checkpoint
    from unnoise.training.posthoc import restore
    from unnoise.training.runner import CHECKPOINTS
    from unnoise.training.settings import WIDEST
    from unnoise.training.trainer import Trainer
    from unnoise.weights.model import save_model

    options = read_run(run)
    recipe = options.recipe
    checks.number("--width", width, above=0, below=WIDEST)
    if out.exists():
        raise UnnoiseError(f"{out} already exists", "name another --out")
    function = find("recipes", recipe)
    arguments = recipe_arguments(found_again(options, run, function))
    training = parse(suited(function, arguments), arguments, f"unnoise train {recipe}")
    with alone(run):  # no training deletes a checkpoint meanwhile
        healthy = [path for path in checkpoint.checkpoints(run / CHECKPOINTS) if checkpoint.healthy(path)]
        if not healthy:
            raise UnnoiseError(f"{run} has no complete checkpoint", "train for longer")
        trainer = Trainer(
            training.objective, training.data, training.settings, run / CHECKPOINTS, identity=training.identity
        )
        trainer.load(healthy[-1])
        fit = restore(trainer, healthy, width)
    if fit.error > error:
        raise UnnoiseError(
            f"{len(healthy)} checkpoints are too few for an average of width {width:g}: the nearest profile is "
            f"{fit.error:.0%} off",
            "keep more of them (--train.keep), choose a width nearer to the stored ones, or raise --error",
        )
    record = {"width": width, "step": trainer.step, "checkpoints": len(healthy), "error": round(fit.error, 5)}
    with trainer.averaged(width) as modules:
        info = {**training.info, "average": record}
        save_model(out, training.finish(modules), info, training.texts, training.precision)
    if as_json:
        print(json.dumps({"model": str(out), **record}))
    else:
        tell(f"{out}: width {width:g} at step {trainer.step}, from {len(healthy)} checkpoints, {fit.error:.1%} off")


def recipe_arguments(arguments: Sequence[str]) -> list[str]:
    """The recipe's own arguments among those of a run, without the ``--run.`` options."""
    from unnoise.cli.train import RunOptions

    flags = [field.name for field in fields(RunOptions) if field.default is False]
    without_value = {f"--run.{way}{flag}" for flag in flags for way in ("", "no-")}  # options without a value
    rest: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument.startswith("--run."):
            skip = "=" not in argument and argument not in without_value
        else:
            rest.append(argument)
    return rest
