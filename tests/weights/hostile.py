"""A model to tamper with, and an ear for what must not happen while it is loaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unnoise.engine.load import load_pipeline
from unnoise.errors import UnnoiseError
from unnoise.files import sha256

WATCHED = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "socket.connect")
heard: list[str] = []
listening = False


def listen(event: str, args: tuple[Any, ...]) -> None:
    if listening and event in WATCHED:
        heard.append(f"{event} {args!r:.200}")


sys.addaudithook(listen)


class Hostile:
    """A copy of the tiny model to tamper with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shard = next(path.glob("*.safetensors"))

    def change(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Rewrites the record."""
        record = json.loads((self.path / "model.json").read_text())
        change(record)
        (self.path / "model.json").write_text(json.dumps(record))

    def sign(self) -> None:
        """Makes the record's hashes those of the files, as whoever tampers would."""
        self.change(lambda record: record["files"].update({n: sha256(self.path / n) for n in record["files"]}))

    def tensors(self, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
        """Rewrites the weights."""
        tensors = load_file(self.shard)
        change(tensors)
        save_file(tensors, self.shard)
        self.sign()

    def refused(self, match: str) -> None:
        """Loading is one short line that names the fault, and ran nothing."""
        global listening
        heard.clear()
        listening = True
        try:
            with pytest.raises(UnnoiseError, match=match) as caught:
                load_pipeline(self.path, "cpu")
        finally:
            listening = False
        assert heard == []
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1300
