"""A process of its own that opens files with little memory, while an audit hook listens; run by test_opening_hostile.

Reads a JSON list of paths from its input; prints a JSON list of [outcome, events] for them: the outcome is "opened",
"UnnoiseError: ..." or the name of another exception.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEARD = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.",
         "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.",
         "os.chmod", "ctypes.dlopen", "urllib.")  # fmt: skip
OURS = ("unnoise", "torch", "safetensors", "tokenizers", "numpy", "math", "json", "encodings", "re", "functools")
ROOM = 3 * 2**30  # bytes of address space besides what the libraries take
events: list[str] = []
listening = False


def listen(event: str, args: tuple[Any, ...]) -> None:
    """Keeps what must not happen while a file is opened."""
    if not listening:
        return
    if event == "open":
        mode, flags = args[1], args[2]
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
            events.append(f"open for writing: {args[0]!r}")
    elif event == "import":
        name = str(args[0])
        if name.partition(".")[0] not in OURS and name not in sys.stdlib_module_names:
            events.append(f"import {name}")
    elif any(event == each or (each.endswith(".") and event.startswith(each)) for each in HEARD):
        events.append(f"{event} {args!r:.200}")


def outcome(run: Callable[[], object]) -> str:
    from unnoise.errors import UnnoiseError

    try:
        run()
    except UnnoiseError as error:
        return f"UnnoiseError: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "opened"


def main() -> None:
    """Opens each path, and looks at each."""
    global listening
    from unnoise.engine.foreign import tokenizer_of
    from unnoise.inspection.look import look
    from unnoise.weights.lookup import parts_for  # noqa: F401  read before anything is listened to
    from unnoise.weights.opening import open_model

    paths = json.load(sys.stdin)

    def opened(path: Path) -> None:
        model = open_model(path)
        for name in model.family.towers:
            tokenizer_of(model, name)

    outcome(lambda: opened(Path(paths[0])))  # a whole one, for what is imported late
    outcome(lambda: look(Path(paths[0])))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    sys.addaudithook(listen)
    results = []
    for text in paths:
        path = Path(text)
        row = []
        for run in (lambda path=path: opened(path), lambda path=path: look(path)):
            events.clear()
            listening = True
            said = outcome(run)
            listening = False
            row.append([said, list(events)])
        results.append(row)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
