"""The command line in processes of their own: fresh interpreters, and forks of one that has imported and done nothing.

A fork starts in milliseconds, so that trainings can be killed by the hundred. Both know nothing of any earlier run.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
ENV = {**os.environ, "PYTHONPATH": f"{TESTS.parent / 'src'}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1"}

IMPORTED_LATE = ("tensorboard.compat.proto.event_pb2", "tyro", "pyarrow.parquet", "PIL.Image", "unnoise.cli.train")


class Server:
    """Forks the command line, one job at a time."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "training.jobs"], env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, *argv: object, at: Sequence[Any] | None = None, send: Sequence[int] = (signal.SIGKILL,)) -> int:
        """Begins ``unnoise *argv``; at the named call, (name or None for any, number from 0), it sends itself signals.

        Returns:
            the process id.
        """
        job = {"argv": [str(each) for each in argv], "at": at, "send": [int(s) for s in send], "log": str(self.log)}
        assert self.process.stdin
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """The exit status of the job, negative for the signal that ended it."""
        return int(self._line())

    def run(self, *argv: object, **how: Any) -> int:
        self.start(*argv, **how)
        return self.wait()

    def calls(self) -> list[str]:
        """The names of all calls of the last job."""
        return Path(f"{self.log}.calls").read_text().split("\n")[:-1]

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the server has died"
        return line


def fresh(*argv: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """``unnoise *argv`` in a new interpreter."""
    command = [sys.executable, "-m", "unnoise.cli.main", *map(str, argv)]
    return subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=300, **more)


def _child(job: dict[str, Any]) -> int:
    from training import faults
    from unnoise.cli.main import main

    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    calls = open(f"{job['log']}.calls", "w", buffering=1)  # noqa: SIM115 (open to the end)
    os.dup2(log, 1)
    os.dup2(log, 2)
    name, left = job["at"] or ("never", 0)

    def act(call: str) -> None:
        nonlocal left
        calls.write(f"{call}\n")
        if name is None or call == name:
            if left == 0:
                for number, each in enumerate(job["send"]):
                    time.sleep(0.6 if number else 0)  # two requests, not one
                    os.kill(os.getpid(), each)
            left -= 1

    faults.watch(act)
    return main(job["argv"])


def _serve() -> None:
    for module in ("training.faults", "unnoise.recipes.latent", "unnoise.training.runner", *IMPORTED_LATE):
        importlib.import_module(module)  # once, for all forks
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                status = _child(json.loads(line))
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
