"""``unnoise``: finds the verb, and tells people's mistakes in one line.

The top level is the standard library alone, so that ``unnoise --help`` answers at once; a verb imports what it needs.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from unnoise.cli import streams
from unnoise.cli.interrupt import interruptible
from unnoise.errors import UnnoiseError, one_line
from unnoise.notes import say, width


class Verb(NamedTuple):
    """Where a verb's function lives and its line in the overview."""

    target: str
    summary: str


VERBS = {
    "generate": Verb("unnoise.cli.generate:generate", "draw pictures for a prompt"),
    "replay": Verb("unnoise.cli.replay:replay", "draw a picture again from its own record: equal, close or different"),
    "nearest": Verb("unnoise.cli.nearest:nearest", "find the training pictures nearest to given pictures"),
    "noise": Verb("unnoise.cli.noise:noise", "show how noise is added to one of your pictures"),
    "train": Verb("unnoise.cli.train:train", "train networks by a recipe, or resume a stopped training"),
    "runs": Verb("unnoise.cli.runs:runs", "list trainings, how far each got and how to resume it"),
    "average": Verb(
        "unnoise.cli.average:average", "make a model from a training's weights, averaged over another width"
    ),
    "data emoji": Verb("unnoise.data.verbs:emoji", "build the captioned picture set from the emoji font"),
    "data show": Verb("unnoise.data.verbs:show", "describe a picture set"),
    "data folder": Verb("unnoise.data.verbs:folder", "build a picture set from a folder of your own pictures"),
    "measure": Verb("unnoise.cli.measure:measure", "measure a model's parts on held-out pictures"),
    "eval": Verb("unnoise.cli.eval:evaluate", "compare models on the same prompts, and write the leaderboard"),
    "study": Verb("unnoise.cli.study:study", "study a model, and write table, curves and sheet"),
    "search": Verb("unnoise.cli.search:search", "search for the noise levels that few steps should visit"),
    "inspect": Verb("unnoise.cli.inspect:inspect", "describe any file or folder, without loading it"),
    "models": Verb("unnoise.cli.models:models", "list the models on this machine, whoever made them"),
    "models add": Verb("unnoise.cli.models:add", "read the headers of a folder of models, and remember where they lie"),
    "models scan": Verb("unnoise.cli.models:scan", "read the folders of the list again where they changed"),
    "models remove": Verb("unnoise.cli.models:remove", "take a folder's models off the list; files stay"),
    "convert": Verb("unnoise.cli.convert:convert", "write pickled or GGUF weights as safetensors, running nothing"),
    "solvers": Verb("unnoise.cli.listing:solvers", "show every solver: its order, its cost, and when to choose it"),
    "list": Verb("unnoise.cli.listing:listing", "list solvers, spacings, guidances, recipes and the rest"),
}


def usage() -> str:
    """The overview."""
    rows = "\n".join(f"  {name:<13} {verb.summary}" for name, verb in VERBS.items())
    return (
        "usage: unnoise VERB ...\n\nPictures from noise, whole and in the open.\n\nverbs:\n"
        f"{rows}\n\n  unnoise VERB --help lists its options; unnoise --version prints the version.\n\n"
        'example:\n  unnoise generate "red apple" --count 4 --seed 1 --out pictures'
    )


def find_verb(args: Sequence[str]) -> tuple[str, list[str]]:
    """(verb, what is left) of the arguments.

    Raises:
        UnnoiseError: there is no such verb.
    """
    for words in (2, 1):
        name = " ".join(args[:words])
        if name in VERBS:
            return name, list(args[words:])
    below = [name for name in VERBS if name.startswith(f"{args[0]} ")]
    if below:
        raise UnnoiseError(
            f"`unnoise {args[0]}` needs another word", f"try {' or '.join(f'`unnoise {b}`' for b in below)}"
        )
    raise UnnoiseError(f"there is no verb {args[0]!r}", f"one of: {', '.join(VERBS)}")


def parse(function: Callable[..., Any], args: Sequence[str], prog: str) -> Any:
    """Calls the function with arguments from the command line, by tyro; its complaints become one line.

    Raises:
        UnnoiseError: an option that does not exist, or a value that is wrong.
    """
    import tyro

    output = io.StringIO()
    wants_help = any(a in ("-h", "--help") for a in args)
    try:
        with columns(width() if wants_help else 500):
            if wants_help:
                return tyro.cli(function, args=args, prog=prog)
            with contextlib.redirect_stderr(output):
                call = tyro.cli(_later(function), args=args, prog=prog)
    except SystemExit as stop:
        if not stop.code or wants_help:
            raise
        raise complaint(output.getvalue(), prog) from None
    return call()


@contextlib.contextmanager
def columns(number: int) -> Iterator[None]:
    """Within, whatever asks for the width of the terminal gets this number."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(number)
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _later(function: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """A function of the same signature that only collects its arguments: its output must not be captured.

    What it returns calls the function, with the arguments as they are meant: see ``cli.meant``.
    """
    import functools
    import inspect

    from unnoise.cli.meant import meant

    @functools.wraps(function)
    def take(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        def call() -> Any:
            bound = inspect.signature(function).bind(*args, **kwargs)
            bound.arguments |= {name: meant(value, name) for name, value in bound.arguments.items()}
            return function(*bound.args, **bound.kwargs)

        return call

    take.__annotations__ = {**function.__annotations__, "return": Any}
    return take


def complaint(box: str, prog: str) -> UnnoiseError:
    """The message that tyro prints in a box, in one line and in our words."""
    rows = [re.sub(r"[│╭╮╰╯]", "", row).strip() for row in box.splitlines()[1:]]
    rows = list(itertools.dropwhile(_is_rule, rows))
    message = " ".join(itertools.takewhile(lambda row: not _is_rule(row), rows)) or "the arguments are wrong"
    hint = f"see `{prog} --help`"
    if match := re.match(r"Unrecognized options: (\S+?),?(?:\s|$)", message):
        near = [row.split()[0].rstrip(",") for row in rows if re.match("--[a-z]", row)]
        hint = f"did you mean {' or '.join(near[:3])}?" if near else hint
        if not match[1].startswith("-"):
            return UnnoiseError(f"{match[1]!r} is one word too many", f'put "quotes" around words of a text; {hint}')
        return UnnoiseError(f"there is no option {match[1]}", hint)
    if match := re.match(r"Missing from .*?: (\S+)|Missing value for argument '(prompt)'", message):
        return UnnoiseError(f"the {(match[1] or match[2]).lower()} is missing", hint)
    if match := re.match(r"Missing value for argument '(\S+)'", message):
        return UnnoiseError(f"{match[1]} wants a value", hint)
    if match := re.match(r"Error parsing (\S+): no type matching (\S+) could be instantiated from \['(.*)'\]", message):
        noun = {"INT": "a whole number", "FLOAT": "a number", "PATH": "a path"}.get(match[2].split("|")[-1], match[2])
        return UnnoiseError(f"{match[1]} wants {noun}, not {match[3]!r}", hint)
    if match := re.match(r"invalid choice '(.*)' for argument '(\S+)'. Expected one of \((.*)\)", message):
        return UnnoiseError(f"{match[2]} cannot be {match[1]!r}", f"one of: {match[3]}".replace("'", ""))
    return UnnoiseError(message[0].lower() + message[1:].rstrip("."), hint)


def _is_rule(row: str) -> bool:
    """Whether a row of a box is empty or drawn, with lines or, on a terminal without them, with dashes."""
    return set(row) <= {"─", "-"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    streams.open_closed()
    try:
        with interruptible(), streams.printed():
            run(list(sys.argv[1:] if argv is None else argv))
        return 0
    except UnnoiseError as error:
        say(f"unnoise: {error}")
        return 130 if type(error).__name__ == "Stopped" else 1
    except KeyboardInterrupt:
        say("unnoise: stopped by Ctrl-C; nothing is left half-written")
        return 130
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # whoever read has seen enough
            place = f" ({error.filename})" if error.filename else ""
            say(f"unnoise: {one_line(f'{error.strerror or error}{place}')}")
        return 1
    except (MemoryError, RuntimeError) as error:
        if type(error).__module__.startswith(("torch._dynamo.", "torch._inductor.")):
            reason = one_line(str(error).strip().partition("\n")[0])
            say(f"unnoise: the network could not be compiled ({reason}); leave --compile out")
            return 1
        if not isinstance(error, MemoryError) and not re.search("out of memory|allocate memory", str(error)):
            raise
        say("unnoise: the memory is not enough; draw fewer pictures at once, or use a smaller batch")
        return 1
    finally:
        streams.settle()


def run(args: list[str]) -> None:
    """Finds the verb and calls it."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
    elif args[0] in ("-V", "--version"):
        from unnoise import __version__

        print(f"unnoise {__version__}")
    else:
        name, rest = find_verb(args)
        module, attribute = VERBS[name].target.split(":")
        function = getattr(importlib.import_module(module), attribute)
        if getattr(function, "parses_itself", False):
            function(rest)
        else:
            parse(function, rest, f"unnoise {name}")


if __name__ == "__main__":
    sys.exit(main())
