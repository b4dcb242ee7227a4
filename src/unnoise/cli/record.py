"""The record of a training in ``run.json``: its recipe and arguments, and how its inputs are found again."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from unnoise.errors import UnnoiseError

RUN = "run.json"
WORDS = ("default", "none")  # that stand in the place of a path


class Started(NamedTuple):
    """A training as its record describes it.

    Attributes:
        recipe: its name.
        arguments: those of the command line that a resumed training repeats.
        folder: where it lay when that was written; None in a record of an older unnoise, whose paths may be relative.
    """

    recipe: str
    arguments: list[str]
    folder: Path | None = None


def flag_of(argument: str) -> str:
    """The option that an argument names, as it is written in a record."""
    return argument.split("=")[0].replace("_", "-")


def kept_arguments(args: Sequence[str], without: Collection[str] = ()) -> list[str]:
    """The arguments that a resumed training must repeat: all but where it runs, for how long, and how it began.

    Args:
        args: of the command line.
        without: more options to leave out, with their values.
    """
    rest: list[str] = []
    skip = False
    for arg in args:
        if skip:
            skip = False
        elif flag_of(arg) in ("--run.out", "--run.minutes", *without):
            skip = "=" not in arg
        elif arg != "--run.resume":
            rest.append(arg)
    return rest


def record(recipe: str, args: Sequence[str], settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What is written: the arguments that are kept, with whole paths, so that they mean the same from anywhere.

    Args:
        recipe: its name.
        args: of the command line.
        settings: the recipe's own, as they were parsed; also those left at their defaults.
        folder: the run's.
    """
    paths = {f"--{name.replace('_', '-')}": value for name, value in settings.items() if isinstance(value, Path)}
    whole = [(flag, os.path.abspath(path) if path.exists() else str(path)) for flag, path in paths.items()]
    arguments = [word for pair in whole for word in pair] + kept_arguments(args, paths)
    return {"recipe": recipe, "arguments": arguments, "folder": os.path.abspath(folder)}


def read_run(folder: Path) -> Started:
    """The training in a folder.

    Raises:
        UnnoiseError: there is none.
    """
    try:
        written = json.loads((folder / RUN).read_text(encoding="utf-8"))
        began = written.get("folder")
        arguments = [str(arg) for arg in written["arguments"]]
        return Started(str(written["recipe"]), arguments, Path(began) if isinstance(began, str) else None)
    except (FileNotFoundError, NotADirectoryError):
        raise UnnoiseError(
            f"no training at {folder}", "name the folder that an earlier `unnoise train` wrote"
        ) from None
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError):
        raise UnnoiseError(
            f"{folder / RUN} is damaged", "start the training with its recipe and --run.resume"
        ) from None


def found_again(started: Started, folder: Path, recipe: Callable[..., Any], more: Sequence[str] = ()) -> list[str]:
    """The arguments of a training, with the places to which its inputs have moved along with it.

    Args:
        started: as its record has it.
        folder: where it lies now.
        recipe: its function.
        more: further arguments; what they name anew is not looked for.

    Raises:
        UnnoiseError: an input is nowhere.
    """
    arguments = list(started.arguments)
    named = {flag_of(arg) for arg in more}
    for flag, default in path_options(recipe):
        typed = value_of(flag, arguments) or (None if default is None else str(default))
        if flag in named or typed is None or os.path.exists(typed):
            continue
        place = next((each for each in places(Path(typed), folder, started.folder) if each.exists()), None)
        if place is not None:
            arguments += [flag, str(place)]
        elif typed not in WORDS:
            what = f"{typed}, which the training in {folder} reads, is not there"
            raise UnnoiseError(what, f"put it back, or name it with {flag} as you resume")
    return arguments


def path_options(recipe: Callable[..., Any]) -> Iterator[tuple[str, Path | None]]:
    """(option, default) of each path that a recipe takes."""
    for name, parameter in inspect.signature(recipe, eval_str=True).parameters.items():
        if Path in (parameter.annotation, *get_args(parameter.annotation)):
            yield f"--{name.replace('_', '-')}", parameter.default


def value_of(flag: str, args: Sequence[str]) -> str | None:
    """The last value that arguments give an option; None where they do not."""
    value = None
    for place, arg in enumerate(args):
        if flag_of(arg) == flag:
            value = arg.partition("=")[2] if "=" in arg else next(iter(args[place + 1 :]), None)
    return value


def places(path: Path, folder: Path, began: Path | None) -> Iterator[Path]:
    """Where an input may be that is not where it was: as it lay to the run's folder, or, of a relative path in an older
    record, in one of the folders that the run lies in."""
    here = Path(os.path.abspath(folder))
    if path.is_absolute() and began is not None:
        yield Path(os.path.normpath(here / os.path.relpath(path, began)))
    elif not path.is_absolute():
        yield from (parent / path for parent in here.parents)
