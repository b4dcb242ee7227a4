"""The process that reads a file which nobody should trust: ``weights/jail.py`` starts it, and believes it little.

It gives up what it does not need before it looks at the file: memory, time and files beyond a limit, child processes,
the network, every import and every file but the one. From then on an audit hook ends it at anything else. Even so it
carries out nothing: pickles are followed with descriptions alone (``weights/pickles.py``).
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from unnoise import foreign
from unnoise.errors import UnnoiseError
from unnoise.foreign import HEAD, instead, kind_of, quoted, read
from unnoise.weights.callables import is_trainer
from unnoise.weights.gguf import gguf_spans
from unnoise.weights.header import safetensors_spans
from unnoise.weights.nested import Chosen, Piece, checked, choose, contiguous
from unnoise.weights.rewrite import rewrite
from unnoise.weights.stores import Opened, Store, open_pickle, open_zip, slice_of

CAUGHT = 77  # the status of a process that reached for what it may not have
FORGOTTEN = ("socket", "select", "ssl", "ctypes", "subprocess", "multiprocessing", "urllib", "http", "email", "shutil")
MAX_LEFT = 200  # names of what is left out that are reported
CODECS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "ascii", "latin-1", "cp437", "raw-unicode-escape", "unicode-escape")
SAFE = "ask for the same weights as safetensors"


def restrict(memory: int, seconds: int, size: int) -> None:
    """Gives up memory, time and files beyond a limit, child processes and, where the system allows it, the network."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    limits = {"AS": memory, "DATA": memory, "CPU": seconds, "FSIZE": size, "NPROC": 0, "NOFILE": 32, "CORE": 0}
    for name, limit in limits.items():
        with contextlib.suppress(ValueError, OSError, AttributeError):  # what this system does not have
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))


def seal(source: str) -> None:
    """From now on only ``source`` can be opened, to be read; anything else that Python reports ends the process."""
    for name in CODECS:
        codecs.lookup(name)
    for name in list(sys.modules):  # what Python and NumPy have imported already would be there for the taking
        if name.split(".")[0].lstrip("_") in FORGOTTEN:
            del sys.modules[name]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            reads = not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if reads and (mode is None or set(mode) <= set("rb")) and (type(path) is int or os.fspath(path) == source):
                return
        os.write(2, f"{event} {args!r:.200}\n".encode("utf-8", "backslashreplace"))
        os._exit(CAUGHT)

    sys.addaudithook(hook)


def convert(source: Path, target: int, dtype: str, key: str) -> dict[str, Any]:
    """Writes the tensors of a file as safetensors, and reports what was taken.

    Raises:
        UnnoiseError: the file is no file of weights, would run code, holds no tensors, or is damaged.
    """
    size = source.stat().st_size
    form, chosen, stores = contents(source, key)
    rewrite(target, chosen.pieces, stores, dtype, size)
    return {
        "form": form,
        "taken": chosen.taken,
        "listed": chosen.listed,
        "left": [quoted(name, 80) for name in chosen.left[:MAX_LEFT]],
        "left_out": len(chosen.left),
        "tensors": {each.name: list(each.shape) for each in chosen.pieces},
    }


def contents(source: Path, key: str) -> tuple[str, Chosen, dict[str, Store]]:
    """(what kind of file it is, the tensors to take, their numbers).

    Raises:
        UnnoiseError, ValueError: see ``convert``.
    """
    head = read(source, HEAD)
    kind = kind_of(head)
    if kind is not None and kind.format in (foreign.SAFETENSORS, foreign.GGUF):
        if key:
            raise UnnoiseError(f"{source} is {kind.name}, and has no records to choose from", "leave --key out")
        spans = gguf_spans(source) if kind.format == foreign.GGUF else safetensors_spans(source)
        pieces = [Piece(name, s.dtype, s.shape, contiguous(s.shape), 0, name) for name, s in spans.items()]
        stores = {name: slice_of(source, s.start, s.size) for name, s in spans.items()}
        return kind.name, Chosen(checked(pieces), "", (), False), stores
    if kind is not None and kind.format == foreign.ZIP:
        opened = open_zip(source)
    elif kind is None or kind.format in (foreign.PICKLE, foreign.TEXT, foreign.JSON):
        opened = open_pickle(source)
    else:
        raise UnnoiseError(f"{source} is {kind.name}, and no file of weights", kind.mend or "name a file of weights")
    refuse(source, opened, head)
    return opened.form, choose(opened.saved.value, key), dict(opened.stores)


def refuse(source: Path, opened: Opened, head: bytes) -> None:
    """Ensures that a pickle is whole and names nothing but what weights need.

    Raises:
        UnnoiseError: it does not.
    """
    pickles = (opened.saved, *opened.others)
    traps = list(dict.fromkeys(name for each in pickles for name in each.traps))
    if traps:
        hidden = "hides a pickle that " if any(each.inner for each in pickles) else ""
        fault = f", and {opened.saved.fault}" if opened.saved.fault else ""
        calls = ", ".join(quoted(name, 80) for name in traps[:4])
        raise UnnoiseError(
            f"{source} is a trap: it {hidden}would call {calls}{fault}; nothing in it was run",
            f"do not open it with any program; {SAFE}",
        )
    if opened.saved.fault and not opened.saved.called:
        kind = instead(head, foreign.PICKLE)
        if kind is not None and kind.format in (foreign.TEXT, foreign.JSON):
            raise UnnoiseError(f"{source} is {kind.name}, and no file of weights", kind.mend)
        if head[:1] != b"\x80" and opened.form == "a pickle":
            raise UnnoiseError(
                f"{source} is of no kind that is known here; it begins with {head[:8]!r}", "name a file of weights"
            )
    fault = next((each.fault for each in pickles if each.fault), "")
    if fault:
        raise UnnoiseError(f"{source} is {opened.form} that cannot be read: {fault}", f"download it again, or {SAFE}")
    strangers = [name for each in pickles for name in each.foreign if not is_trainer(name)]
    if strangers:
        names = ", ".join(quoted(name, 80) for name in dict.fromkeys(strangers[:4]))
        raise UnnoiseError(f"{source} needs code of other programs, which is not run here: {names}", SAFE)


def answer(source: Path, target: int, dtype: str, key: str) -> dict[str, Any]:
    """The report of ``convert``, or why the file is refused: {"refused": [what, hint]}."""
    try:
        return convert(source, target, dtype, key)
    except UnnoiseError as error:
        refused = error if str(source) in error.what else UnnoiseError(f"{source}: {error.what}", error.hint)
    except MemoryError:
        refused = UnnoiseError(f"{source} needs more memory than a file of weights should", "check where it is from")
    except (ValueError, OverflowError, RecursionError, OSError) as error:
        refused = UnnoiseError(f"{source} cannot be converted: {error}", f"download it again, or {SAFE}")
    return {"refused": [refused.what, refused.hint]}


def main() -> NoReturn:
    """Does what the arguments say, and prints the answer as one line of JSON."""
    source, target, dtype, key, memory, seconds, size = sys.argv[1:]
    restrict(int(memory), int(seconds), int(size))
    seal(source)
    data = json.dumps(answer(Path(source), int(target), dtype, key)).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]
    os._exit(0)
