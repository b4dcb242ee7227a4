"""Whatever is missing from a checkpoint or altered in it is refused, said, or seen in the result."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.small import build
from training.toy import SETTINGS, ToyData, equal, state, trainer
from unnoise.errors import UnnoiseError
from unnoise.files import sha256
from unnoise.training import checkpoint
from unnoise.training.trainer import Trainer

CUT, STEPS = 8, 30
BAD = range(5, 24)  # 19 steps on end: one more would stop the training
LENIENT = ("samples", "minutes", "cooldown", "checkpoint_every", "preview_every", "watch_every", "keep")


def begin(folder: Path) -> Trainer:
    return trainer(folder, ToyData(BAD), samples=STEPS * SETTINGS.batch)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """(a checkpoint in mid-training, the state at the end)."""
    training = begin(tmp_path_factory.mktemp("run"))
    for step in training.run():
        if step.step == CUT:
            path = training.save()
    return path, state(training)


def outcome(path: Path, spoil: Callable[[Trainer], None] = lambda t: None) -> dict[str, Any] | None:
    """The state at the end of the training that goes on from there; None if it is refused, stopped, or warned of."""
    training = begin(path.parent)
    try:
        training.load(path)
        spoil(training)
        for _ in training.run():
            pass
    except UnnoiseError:
        return None
    return None if training.warnings else state(training)


def noticed(path: Path, end: dict[str, Any]) -> bool:
    found = outcome(path)
    return found is None or not equal(found, end)


def leaves(value: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The places of a manifest, records before what is in them."""
    if where:
        yield where
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*where, key))


def changes(manifest: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(what was done, a manifest with one field dropped or altered), for every field."""
    for where in leaves(manifest):
        for how in ("dropped", "altered"):
            changed = copy.deepcopy(manifest)
            inside = changed
            for key in where[:-1]:
                inside = inside[key]
            value = inside.pop(where[-1])
            if how == "altered":
                if isinstance(value, dict):
                    continue
                inside[where[-1]] = value + 1 if isinstance(value, int | float) else [value, "other"]
            yield f"{'.'.join(where)} {how}", changed


def rewrite(path: Path, manifest: dict[str, Any], forge: bool) -> None:
    """Writes a manifest; a forged one has the right hash, as if the program had left the field out or mistaken it."""
    if forge:
        manifest = {k: v for k, v in manifest.items() if k != "sha256"}
        manifest["sha256"] = checkpoint._digest(manifest)
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest))


def test_the_untouched_checkpoint_is_taken(saved: tuple[Path, dict[str, Any]]) -> None:
    path, end = saved
    assert not noticed(path, end), "the control of the controls"


@pytest.mark.parametrize("forge", [False, True])
def test_every_field_of_the_manifest_counts(forge: bool, saved: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, end = saved
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    silent, tried = [], 0
    for done, changed in changes(manifest):
        copied = shutil.copytree(path, tmp_path / str(tried) / path.name)
        rewrite(copied, changed, forge)
        tried += 1
        if not noticed(copied, end):
            silent.append(done)
    assert tried > 60
    # settings that may change when a training is resumed: what counts is what it is told now
    free = {f"identity.settings.{name} {how}" for name in LENIENT for how in ("dropped", "altered")}
    # what is not known was no setting then, and is taken to be at its default; time counts in trainings by time alone
    free |= {f"identity.settings.{f.name} dropped" for f in fields(SETTINGS) if getattr(SETTINGS, f.name) == f.default}
    free |= {"sha256 dropped", "sha256 altered", "seconds dropped", "seconds altered"}
    assert set(silent) == (free if forge else set())


@pytest.mark.slow
def test_every_file_and_tensor_counts(saved: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """With hashes made anew, as if the program had left it out or mistaken it."""
    path, end = saved
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    number = 0
    for name in manifest["files"]:
        tensors = load_file(path / name)
        variants: dict[str, dict[str, Any] | None] = {"the file left out": None}
        for key, value in tensors.items():
            variants[f"{key} left out"] = {k: v for k, v in tensors.items() if k != key}
            variants[f"{key} altered"] = tensors | {key: value + 1}
            variants[f"{key} of another shape"] = tensors | {key: value.flatten()[:1].clone().reshape(1, 1, 1)}
            variants[f"{key} of another dtype"] = tensors | {key: value.half()}
            variants[f"{key} renamed"] = {k if k != key else f"{k}x": v for k, v in tensors.items()}
        for done, chosen in variants.items():
            copied = shutil.copytree(path, tmp_path / str(number) / path.name)
            number += 1
            changed = copy.deepcopy(manifest)
            if chosen is None:
                (copied / name).unlink()
                del changed["files"][name]
            else:
                save_file(chosen, copied / name)
                changed["files"][name] = sha256(copied / name)
            rewrite(copied, changed, forge=True)
            assert noticed(copied, end), (name, done)
    assert number > 80


def test_every_bit_counts(saved: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """A flipped bit, a cut file or a missing one is refused by name, wherever it is."""
    path, _ = saved
    for file in sorted(path.iterdir()):
        data = file.read_bytes()
        for place in (0, len(data) // 3, len(data) // 2, len(data) - 2):
            copied = shutil.copytree(path, tmp_path / f"{file.name}-{place}" / path.name)
            flipped = bytearray(data)
            flipped[place] ^= 4
            for damaged in (bytes(flipped), data[:place], None):
                if damaged is None:
                    (copied / file.name).unlink()
                else:
                    (copied / file.name).write_bytes(damaged)
                with pytest.raises(UnnoiseError, match=r"damaged|no checkpoint at|has format"):
                    begin(copied.parent).load(copied)
                assert checkpoint.latest(copied.parent) is None


@pytest.mark.slow
def test_everything_that_is_forgotten_shows(saved: tuple[Path, dict[str, Any]]) -> None:
    """The comparison itself has eyes: put one part back to its start after loading, and the end is another."""
    path, end = saved
    fresh = begin(path.parent).tensors()
    for file, named in fresh.items():
        for name, value in named.items():

            def forget(t: Trainer, file: str = file, name: str = name, value: torch.Tensor = value) -> None:
                if name == "steps":
                    t.optimisers[file.removesuffix(".optimiser")].steps = 0
                else:
                    t.tensors()[file][name].copy_(value)

            found = outcome(path, torch.no_grad()(forget))
            assert found is None or not equal(found, end), (file, name)
    for counter in ("step", "samples", "skipped", "_skipped_in_a_row"):
        found = outcome(path, lambda t, counter=counter: setattr(t, counter, getattr(t, counter) + 1))
        assert found is None or not equal(found, end), counter


@pytest.mark.parametrize("recipe", ["emoji-flow", "emoji-text"])
def test_no_tensor_of_a_recipe_can_be_left_out(recipe: str, world: Path, tmp_path: Path) -> None:
    training = build(recipe, world)
    trained = Trainer(training.objective, training.data, training.settings, tmp_path, identity=training.identity)
    own = trained.tensors()
    for file, named in own.items():
        with pytest.raises(KeyError, match="tensors that differ"):
            checkpoint.match(own, {f: n for f, n in own.items() if f != file})
        for name in named:
            less = {f: {k: v for k, v in n.items() if (f, k) != (file, name)} for f, n in own.items()}
            with pytest.raises(KeyError, match="tensors that differ"):
                checkpoint.match(own, less)
