"""``unnoise train``: runs a recipe, or goes on with a training that was stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unnoise.cli.meant import nameable
from unnoise.cli.record import found_again, read_run, record, value_of
from unnoise.core import checks, registry
from unnoise.errors import UnnoiseError, one_line
from unnoise.files import expanded
from unnoise.notes import tell


@dataclass(frozen=True)
class RunOptions:
    """Where and on what a training runs; none of these changes what is learnt.

    Attributes:
        out: the run's folder; by default runs/RECIPE.
        resume: go on from the newest whole checkpoint in it.
        device: cpu, cuda, or auto.
        dtype: float32 or bfloat16; auto tries both on the machine and takes the faster.
        compile: compile the network for this machine, some minutes at the start: for trainings of an hour and more.
        threads: processor threads.
        minutes: stop after so long, as if interrupted; schedules do not see it.
    """

    out: Path | None = None
    resume: bool = False
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    threads: int | None = None
    minutes: float | None = None


def train(args: Sequence[str]) -> None:
    """Parses ``RECIPE [options]`` or ``--resume FOLDER [options]`` and trains."""
    recipes = registry.index("recipes")
    if not args or args[0] in ("-h", "--help"):
        rows = "\n".join(f"  {e.name:<18} {e.summary}" for e in recipes.values())
        print(
            "usage: unnoise train RECIPE [options]\n       unnoise train --resume FOLDER [options]\n\n"
            f"recipes:\n{rows}\n\n  unnoise train RECIPE --help lists a recipe's settings.\n"
            "  A training stopped at any moment goes on to the same bits: its own settings are kept in its folder,\n"
            "  and options after --resume FOLDER are added to them (--train.samples, --run.device, --run.minutes, ...)."
        )
        return
    if args[0] == "--resume":
        if len(args) < 2:
            raise UnnoiseError("--resume wants the folder of a training", "unnoise train --resume runs/emoji-flow")
        folder = nameable(expanded(args[1]))
        started = read_run(folder)
        recipe, function = started.recipe, registry.find("recipes", started.recipe)
        args = [*found_again(started, folder, function, args[2:]), *args[2:], "--run.out", str(folder), "--run.resume"]
    else:
        recipe, function, args = args[0], registry.find("recipes", args[0]), list(args[1:])
    from unnoise.cli.main import parse

    parse(_with_options(function, recipe, list(args)), args, f"unnoise train {recipe}")


train.parses_itself = True  # type: ignore[attr-defined]


def _with_options(recipe: Any, name: str, args: list[str]) -> Any:
    """The recipe's function with the options of a run added to its signature."""
    import functools
    import inspect

    recipe = suited(recipe, args)
    signature = inspect.signature(recipe, eval_str=True)
    run = inspect.Parameter("run", inspect.Parameter.KEYWORD_ONLY, default=RunOptions(), annotation=RunOptions)

    @functools.wraps(recipe)
    def whole(*, run: RunOptions, **settings: Any) -> None:
        _train(lambda: recipe(**settings), name, run, lambda folder: record(name, args, settings, folder))

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]
    whole.__signature__ = signature.replace(parameters=[*parameters, run], return_annotation=None)  # type: ignore[attr-defined]
    whole.__annotations__ = {p.name: p.annotation for p in [*parameters, run]}
    whole.__doc__ = (recipe.__doc__ or "").rstrip() + "\n        run: where and on what it runs.\n    "
    return whole


def suited(recipe: Any, args: Sequence[str]) -> Any:
    """The recipe's function with the defaults that suit what is typed.

    A recipe says so by an attribute ``suited``: (an argument's name, what gives other defaults by that argument).
    """
    import functools
    import inspect

    name, others = getattr(recipe, "suited", ("", None))
    typed = value_of(f"--{name}", args)
    changed = others(typed) if typed and others is not None else {}
    if not changed:
        return recipe
    signature = inspect.signature(recipe, eval_str=True)

    @functools.wraps(recipe)
    def whole(**settings: Any) -> Any:
        return recipe(**{**changed, **settings})

    parameters = [
        p.replace(default=changed.get(p.name, p.default), kind=inspect.Parameter.KEYWORD_ONLY)
        for p in signature.parameters.values()
    ]
    whole.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return whole


def _train(build: Any, recipe: str, options: RunOptions, record_in: Callable[[Path], dict[str, Any]]) -> None:
    import torch

    from unnoise.engine.load import choose_device
    from unnoise.kernels.compiled import check_compiler
    from unnoise.training.runner import resumed_from, run

    if options.threads is not None:
        torch.set_num_threads(checks.whole("threads", options.threads, 1, checks.THREADS))
    if options.minutes is not None and not options.minutes >= 0:
        raise UnnoiseError(f"{options.minutes:g} minutes are no time to train", "ask for more; 0 is a single step")
    folder = options.out or Path("runs") / recipe
    device = choose_device(options.device)
    dtype = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}[options.dtype]
    resumed_from(folder, options.resume)  # refused before any work
    if options.compile:
        check_compiler(device)
    try:
        training = build()
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, ValueError) as error:
        raise UnnoiseError(
            f"{recipe} cannot be built as set: {one_line(str(error))}", f"see `unnoise train {recipe} --help`"
        ) from None
    where = (training, folder, str(device), dtype, options.resume, options.minutes)
    model = run(*where, record=record_in(folder), compiled=options.compile)
    tell(f"done: the model is at {model}")
