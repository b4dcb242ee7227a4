"""Thousands of files of weights that are damaged by chance: each arrives bit for bit, or is refused in one line.

The reference is ``torch.load(weights_only=True)`` of the damaged file: where it and we both read something, we read the
same. ``UNNOISE_FUZZ`` sets how many files of each kind the soak test tries.
"""

from __future__ import annotations

import contextlib
import os
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from unnoise.errors import UnnoiseError
from unnoise.weights.jail import unpack
from weights import foreign_files as made
from weights.test_jail import tried

PLAIN = {name: tensor for name, tensor in made.weights(3).items() if not name.startswith("d.")}
NESTED = {"state_dict": {"w": torch.arange(6.0).reshape(2, 3).t(), "v": torch.ones(4, dtype=torch.int64)}, "epoch": 3.5}
SOURCES = {
    "zip": made.saved(PLAIN),
    "old": made.saved(PLAIN, legacy=True),
    "nested zip": made.saved(NESTED),
    "nested old": made.saved(NESTED, legacy=True),
    "trap": made.traps()["in a zip"][0],
    "old trap": made.traps()["in the old format"][0],
}


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The bytes with a few flips, cuts, copies and swaps."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at, end = sorted(chance.randrange(len(changed) + 1) for _ in range(2))
        end = min(end, at + chance.choice((1, 2, 8, 64, 1000)))
        how = chance.randrange(6)
        if how <= 1 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif how == 2 and at < len(changed):
            changed[at] = chance.choice(b"\x00\x01\x7f\x80\xff.(})]tuRbcQ\x93\x94")
        elif how == 3:
            del changed[at:end]
        elif how == 4:
            changed[at:at] = changed[end : end + 40]
        elif len(changed) > 8:
            del changed[chance.randrange(len(changed)) :]
        if not changed:
            changed = bytearray(data[:1])
    return bytes(changed)


def only_pickle(data: bytes, chance: random.Random) -> bytes:
    """A zip whose pickle is damaged, with a right checksum."""

    def change(entries: dict[str, bytes]) -> None:
        entries["archive/data.pkl"] = damaged(entries["archive/data.pkl"], chance)

    return made.rezipped(data, change)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a loaded file by the names that they get."""
    if isinstance(value, torch.Tensor):
        yield name or "tensor", value
    elif isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, str | int | float | bool):
                yield from flat(inner, f"{name}.{key}" if name else str(key))


def loaded(path: Path) -> dict[str, torch.Tensor] | None:
    """What torch reads of it; None if it does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dict(flat(torch.load(path, weights_only=True, map_location="cpu")))
        except BaseException:
            return None


def try_many(count: int, seed: int, path: Path) -> dict[str, int]:
    """Tries so many damaged files of each kind; {outcome: how often}.

    Raises:
        AssertionError: one was neither refused in one line nor read as torch reads it.
    """
    chance, outcomes = random.Random(seed), {"refused": 0, "equal": 0, "read here alone": 0}
    for _ in range(count):
        for kind, data in SOURCES.items():
            ways: list[Callable[[bytes, random.Random], bytes]] = [damaged]
            if "old" not in kind:
                ways.append(only_pickle)
            for way in ways:
                path.write_bytes(way(data, chance))
                answer, tensors = tried(path)
                if "refused" in answer:
                    line = "; ".join(answer["refused"])
                    assert line.isprintable()
                    assert len(line) < 1300
                    outcomes["refused"] += 1
                    continue
                assert "trap" not in kind or "posix" not in path.read_bytes().decode("latin-1"), (
                    "a trap was passed over"
                )
                reference = loaded(path)
                if reference is None:
                    outcomes["read here alone"] += 1
                    continue
                inside = answer["taken"]
                if inside:
                    reference = {n[len(inside) + 1 :]: t for n, t in reference.items() if n.startswith(f"{inside}.")}
                assert {n for n in reference if "optim" not in n} == set(tensors), path
                for name, tensor in tensors.items():
                    assert made.same(tensor, reference[name]), (path, name)
                outcomes["equal"] += 1
    return outcomes


def test_damaged_files(tmp_path: Path) -> None:
    outcomes = try_many(15, 1, tmp_path / "model.pt")
    assert outcomes["refused"] > 50


def test_files_that_are_whole_pass_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without damage all but the traps are read, and equal; a wrong number would be noticed."""
    monkeypatch.setitem(globals(), "damaged", lambda data, chance: data)
    assert try_many(1, 0, tmp_path / "model.pt") == {"refused": 3, "equal": 6, "read here alone": 0}
    wrong = {name: tensor.clone() for name, tensor in PLAIN.items()} | {"scalar": torch.tensor(4.0)}
    monkeypatch.setitem(globals(), "loaded", lambda path: wrong)
    with pytest.raises(AssertionError, match="scalar"):
        try_many(1, 0, tmp_path / "model.pt")


@pytest.mark.slow
def test_thousands_of_damaged_files(tmp_path: Path) -> None:
    outcomes = try_many(60, 2, tmp_path / "model.pt")
    assert outcomes["equal"] > 5
    chance = random.Random(4)
    for index in range(20):  # the same through the process in jail
        path, out = tmp_path / f"{index}.pt", tmp_path / f"{index}.safetensors"
        path.write_bytes(damaged(SOURCES[chance.choice(list(SOURCES))], chance))
        with contextlib.suppress(UnnoiseError):
            unpack(path, out)
            continue
        assert not out.exists()
        with pytest.raises(UnnoiseError, match=r"^(?!.*ended the process).*$"):
            unpack(path, out)
    assert not list(tmp_path.glob(".partial*"))


@pytest.mark.soak
def test_a_great_many_damaged_files(tmp_path: Path) -> None:
    try_many(int(os.environ.get("UNNOISE_FUZZ", "2000")), 3, tmp_path / "model.pt")
