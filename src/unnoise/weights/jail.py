"""Weights of files that nobody should trust, written as safetensors by a process that can do nothing else.

A pickle is a program. ``unpack`` starts a Python of its own for one file: without the user's environment and packages,
with limits on memory, time and the file it writes, and with a hook that ends it when it reaches for the network,
another program, another file or a module (``weights/jailed.py``). What it writes is a safetensors file, which is
checked by its header before it gets its name.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.errors import UnnoiseError
from unnoise.files import expanded, new_file
from unnoise.weights.header import MAX_HEADER, Header, read_header
from unnoise.weights.rewrite import FLOATS, GROWTH, SPARE

MEMORY = 2**32  # bytes of address space: 1 GiB for scattered tensors, copies of parts of them, Python and NumPy
SECONDS, SPEED = 120, 2**22  # of a processor, and bytes that a second more is given for
MAX_ANSWER = 2**25  # bytes
BEGIN = "import sys; sys.path[:0] = sys.argv.pop(1).split(chr(0x1f)); from unnoise.weights import jailed; jailed.main()"
ANSWERS = {"form": str, "taken": str, "left": list, "left_out": int, "listed": bool, "tensors": dict}
KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")  # without which some installations of NumPy do not load


class Unpacked(NamedTuple):
    """What was written.

    Attributes:
        header: of the new file.
        form: what kind of file it comes from, with an article.
        taken: the name of the record that was taken, words joined by dots; "" if the whole.
        left: names of what was left out, the first of them.
        left_out: how many there are.
        listed: whether it was a list of tensors without names, which are called 0, 1, 2 now.
    """

    header: Header
    form: str
    taken: str
    left: tuple[str, ...]
    left_out: int
    listed: bool


def unpack(source: Path, target: Path, dtype: str = "keep", key: str = "") -> Unpacked:
    """Writes the tensors of a pickle, a file of torch.save, GGUF or safetensors as a new safetensors file.

    Args:
        source: the file. Nothing in it is run.
        target: the new file, which appears complete or not at all.
        dtype: what real numbers become: "keep", "float32", "float16" or "bfloat16".
        key: the record of a checkpoint to take, words joined by dots; "" to look for the model's.

    Raises:
        UnnoiseError: it is a trap, is damaged, holds no tensors or none that are read here; or the target exists or
            cannot be written.
    """
    source, target = expanded(source), expanded(target)
    if dtype != "keep" and dtype not in FLOATS:
        raise UnnoiseError(f"{dtype!r} is no type to convert to", f"one of: keep, {', '.join(FLOATS)}")
    if source.is_dir():
        raise UnnoiseError(f"{source} is a folder", "name a file in it")
    if not source.is_file():
        raise UnnoiseError(f"there is no file at {source}", "check the path")
    with new_file(target) as scratch:
        answer = _jailed(source, scratch, dtype, key)
        header = read_header(scratch)
        written = {name: list(shape or ()) for name, (_, shape) in header.tensors.items()}
        if written != answer["tensors"]:
            raise UnnoiseError(f"{source} was not converted whole", "report this")
        scratch.chmod(0o644)
    left = tuple(map(str, answer["left"]))
    return Unpacked(header, answer["form"], answer["taken"], left, answer["left_out"], answer["listed"])


def command(*arguments: str) -> list[str]:
    """The command of a process in jail: Python without site packages, user's settings and the current folder."""
    roots = [Path(__file__).parents[2]]
    if numpy := importlib.util.find_spec("numpy"):
        roots.append(Path(str(numpy.origin)).parents[1])
    return [sys.executable, "-I", "-S", "-B", "-W", "ignore", "-c", BEGIN, "\x1f".join(map(str, roots)), *arguments]


def _jailed(source: Path, scratch: Path, dtype: str, key: str) -> dict[str, Any]:
    """The answer of the process that writes ``scratch``.

    Raises:
        UnnoiseError: it refuses the file, or was ended.
    """
    size = source.stat().st_size
    seconds, most = SECONDS + size // SPEED, GROWTH * size + SPARE + MAX_HEADER
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    target = os.open(scratch, os.O_WRONLY | os.O_CLOEXEC)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaint:
        try:
            process = subprocess.Popen(
                command(str(source), str(target), dtype, key, str(MEMORY), str(seconds), str(most)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=complaint,
                env=environment,
                pass_fds=(target,),
            )
        finally:
            os.close(target)
        try:
            process.wait(timeout=4 * seconds)
        except subprocess.TimeoutExpired:
            complaint.write(b"\nit took too long")
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        complaint.seek(0)
        return _understood(source, output.read(MAX_ANSWER), complaint.read(MAX_ANSWER), process.returncode)


def _understood(source: Path, output: bytes, complaint: bytes, status: int) -> dict[str, Any]:
    """The answer in one line of JSON.

    Raises:
        UnnoiseError: it says why the file is refused, or there is none.
    """
    try:
        answer = json.loads(output) if status == 0 else {}
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    if isinstance(answer.get("refused"), list):
        raise UnnoiseError(*map(str, answer["refused"][:2]))
    if not ANSWERS.keys() <= answer.keys() or not all(isinstance(answer[k], kind) for k, kind in ANSWERS.items()):
        lines = complaint.decode("utf-8", "replace").strip().splitlines()
        ending = f"with status {status}" if status >= 0 else f"by signal {-status}"
        why = lines[-1][:200] if lines else "it ran out of time or memory"
        raise UnnoiseError(f"{source} ended the process that read it ({ending}: {why})", "check where it is from")
    return dict(answer)
