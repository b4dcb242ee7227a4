"""``unnoise runs``: the trainings in a folder, their state, and how to resume each. Reads only JSON, without torch."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import tyro

from unnoise.data.intake import printable
from unnoise.errors import UnnoiseError
from unnoise.training.stopping import go_on

LAST_STEPS, LAST_BYTES = 30, 256_000
HELD_OUT_LOSS = "kept-back/loss"


def runs(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = Path("runs"),
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """List trainings: the recipe of each, how far it got, its last losses, and the command that resumes it.

    Args:
        folder: the folder with the trainings, or one training's own folder.
        as_json: print them as JSON on standard output.
    """
    if not folder.is_dir():
        raise UnnoiseError(f"there is no folder {folder}", "name the folder that holds your trainings")
    folders = [folder] if (folder / "run.json").is_file() else sorted(p.parent for p in folder.glob("*/run.json"))
    records = [look(each) for each in folders]
    if as_json:
        print(json.dumps(records))
    elif not records:
        print(f"no trainings in {folder}; `unnoise train RECIPE` begins one")
    else:
        show(records)


def look(run: Path) -> dict[str, Any]:
    """The state of the training in a folder, without loading it."""
    record, manifest, rows = _json(run / "run.json"), _json(newest(run) / "manifest.json"), last_rows(run)
    last = [loss_of(row) for row in rows[-LAST_STEPS:]]
    losses = [value for value in last if isinstance(value, float) and math.isfinite(value)]
    settings = _inside(_inside(manifest, "identity"), "settings")
    is_finished = (run / "model" / "model.json").is_file()
    at = manifest.get("samples") if is_finished or not rows else rows[-1].get("samples")
    state = "running" if locked(run) else "finished" if is_finished else "stopped" if manifest else "begun"
    times = [p.stat().st_mtime for p in (run / "metrics.jsonl", run / "run.json") if p.is_file()]
    again = None if state in ("finished", "running") else go_on(run)
    if state == "begun":
        arguments = record.get("arguments", [])
        words = shlex.join(map(str, arguments)) if isinstance(arguments, list) else ""
        place = shlex.quote(os.path.abspath(run))
        again = f"unnoise train {record.get('recipe', 'RECIPE')} {words} --run.out {place}"
    return {
        "path": str(run),
        "recipe": str(record.get("recipe", "?")),
        "state": state,
        "samples": at,
        "of": settings.get("samples"),
        "loss": round(sum(losses) / len(losses), 4) if losses else None,
        "kept_back": next(
            (value for row in reversed(rows) if isinstance(value := row.get(HELD_OUT_LOSS), float)), None
        ),
        "idle_seconds": round(time.time() - max(times)) if times else None,
        "go_on": again,
    }


def newest(run: Path) -> Path:
    """The folder of the newest checkpoint by its name, complete or not."""
    return max((run / "checkpoints").glob("step-*"), default=run / "checkpoints")


def last_rows(run: Path) -> list[dict[str, Any]]:
    """The steps in the last part of the log; a line that is still being written is skipped."""
    rows = []
    with contextlib.suppress(OSError):
        with (run / "metrics.jsonl").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LAST_BYTES))
            lines = file.read().splitlines()
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line)
                rows += [row] if isinstance(row, dict) else []
    return rows


def loss_of(row: dict[str, Any]) -> Any:
    """The first phase's loss: the first figure that is not about the step itself and has no / in its name."""
    own = {"step", "samples", "rate", "gradient_norm", "seconds", "skipped"}
    return next((value for key, value in row.items() if key not in own and "/" not in key), None)


def locked(run: Path) -> bool:
    """Whether a process is training there now."""
    with contextlib.suppress(OSError), (run / ".lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def show(records: list[dict[str, Any]]) -> None:
    """One block of lines for each training."""
    for run in records:
        length = f" of {run['of']:,}" if isinstance(run["of"], int) else ""
        far = f"{run['samples']:,}{length} samples" if isinstance(run["samples"], int) else "no checkpoint yet"
        loss = "" if run["loss"] is None else f", loss {run['loss']:g}"
        loss += "" if run["kept_back"] is None else f", on pictures kept back {run['kept_back']:.4g}"
        idle = "" if run["idle_seconds"] is None else f", last heard of {_ago(run['idle_seconds'])}"
        print(f"{ascii(run['path'])[1:-1]}: {ascii(run['recipe'])[1:-1]}, {run['state']}, {far}{loss}{idle}")
        if run["go_on"]:
            print(f"  {printable(run['go_on'])}")


def _ago(seconds: int) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


def _inside(record: dict[str, Any], key: str) -> dict[str, Any]:
    """The nested record under that key; empty if there is none."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    """The record in a file; empty if there is none or it is damaged."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        value = json.loads(path.read_text("utf-8"))
        if isinstance(value, dict):
            return value
    return {}
