"""The program as a process: what it imports, signals, pipes, encodings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent.parent / "src"
LOOK = (
    "import json, sys\nfrom unnoise.cli.main import main\ntry:\n    code = main(sys.argv[1:])\n"
    "except SystemExit as stop:\n    code = stop.code\n"
    "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})), file=sys.stderr)\nsys.exit(code)"
)
HEAVY = {"transformers", "diffusers", "pyarrow", "matplotlib", "emoji", "tensorboard", "scipy", "pandas", "datasets"}


def start(code: list[str], *args: str, **env: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    whole = {**os.environ, "PYTHONPATH": str(SRC), **env}
    # what a shell starts in the background ignores Ctrl-C, and hands that on
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, *code, *args]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=whole, preexec_fn=listen)


def imported(*args: str, **env: str) -> tuple[set[str], str]:
    """(top-level modules in memory at the end, what was printed)."""
    out, err = (process := start(["-c", LOOK], *args, **env)).communicate(timeout=120)
    assert process.returncode == 0, err
    return set(json.loads(err.splitlines()[-1])), out


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["list"], ["list", "solvers"], ["generate", "--help"], []])
def test_answers_without_torch(args: list[str]) -> None:
    modules, out = imported(*args)
    assert out
    assert not modules & {"torch", "numpy", "PIL", "safetensors", "tokenizers", *HEAVY}


def test_help_version_and_list_say_what_they_should() -> None:
    import unnoise

    assert imported("--version")[1] == f"unnoise {unnoise.__version__}\n"
    assert 'unnoise generate "red apple"' in imported("--help")[1]
    listed = imported("list")[1]
    for word in ("solvers:", "dpmpp-2m", "recipes:", "emoji-flow", "unet", "clip-text"):
        assert word in listed


def test_generate_imports_nothing_heavier_than_torch(tiny_model: Path, tmp_path: Path) -> None:
    """And prints any prompt on a terminal without Unicode."""
    args = ["ein Käse 🍎", "--model", str(tiny_model), "--out", str(tmp_path / "out"), "--seed", "1"]
    modules, said = imported("generate", *args, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert "torch" in modules
    assert not modules & HEAVY
    assert "ein K\\xe4se \\U0001f34e: seed 1" in said


def test_ctrl_c_leaves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "pictures"
    args = ["generate", "red apple", "--model", str(tiny_model), "--steps", "10000", "--out", str(out)]
    process = start(["-m", "unnoise.cli.main"], *args)
    deadline = time.monotonic() + 60
    while not out.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    said, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == ""
    assert err == "unnoise: stopped by Ctrl-C; nothing is left half-written\n"
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_seen_enough() -> None:
    process = start(["-m", "unnoise.cli.main"], "list")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(30) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_that_is_full() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "unnoise.cli.main", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SRC)},
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "unnoise: No space left on device\n"
