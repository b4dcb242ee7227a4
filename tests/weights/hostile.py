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
from torch import nn

from unnoise.encoders.pair import Pair, PairConfig
from unnoise.engine.load import load_engine
from unnoise.errors import UnnoiseError
from unnoise.files import sha256

WATCHED = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "socket.connect")
heard: list[str] = []
listening = False


def listen(event: str, args: tuple[Any, ...]) -> None:
    if listening and event in WATCHED:
        heard.append(f"{event} {args!r:.200}")


sys.addaudithook(listen)


SMALL = PairConfig(8, 8, 8)


def pair(seed: int) -> Pair:
    """A small part of a model."""
    torch.manual_seed(seed)
    return Pair(SMALL)


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two parts have the same weights under the same names."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


class Hostile:
    """A copy of the tiny model to tamper with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shard, self.text, self.autoencoder = (
            path / f"{part}-01-of-01.safetensors" for part in ("denoiser", "text", "autoencoder")
        )

    def change(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Rewrites the record."""
        record = json.loads((self.path / "model.json").read_text())
        change(record)
        (self.path / "model.json").write_text(json.dumps(record))

    def sign(self) -> None:
        """Makes the record's hashes those of the files, and wants no digests, as whoever tampers would."""
        self.change(lambda record: record["files"].update({n: sha256(self.path / n) for n in record["files"]}))
        self.change(lambda record: [e.update(shards=dict.fromkeys(e["shards"])) for e in record["parts"].values()])

    def tensors(self, change: Callable[[dict[str, torch.Tensor]], Any], shard: Path | None = None) -> None:
        """Rewrites the weights of the denoiser, or of another shard."""
        tensors = load_file(shard or self.shard)
        change(tensors)
        save_file(tensors, shard or self.shard)
        self.sign()

    def as_format_1(self) -> None:
        """Makes it a folder of the first format: parts in any shards, and no word of which."""

        def change(record: dict[str, Any]) -> None:
            parts = record.pop("parts")
            record["format"] = 1
            record["components"] = {
                part: {key: value for key, value in entry.items() if key not in ("kind", "dtype", "shards")}
                for part, entry in parts.items()
            }

        self.change(change)
        tensors = {
            name: tensor for shard in (self.autoencoder, self.shard) for name, tensor in load_file(shard).items()
        }
        save_file(tensors, self.path / "weights-01-of-02.safetensors")
        self.text.rename(self.path / "weights-02-of-02.safetensors")
        self.shard.unlink()
        self.autoencoder.unlink()

        def files(record: dict[str, Any]) -> None:
            names = [p.name for p in sorted(self.path.iterdir()) if p.name != "model.json"]
            record["files"] = {name: sha256(self.path / name) for name in names}

        self.change(files)

    def refused(self, match: str) -> None:
        """Loading is one short line that names the fault, and ran nothing."""
        global listening
        heard.clear()
        listening = True
        try:
            with pytest.raises(UnnoiseError, match=match) as caught:
                load_engine(self.path, "cpu")
        finally:
            listening = False
        assert heard == []
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1300
