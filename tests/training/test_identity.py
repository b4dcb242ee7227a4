"""A training goes on from what a checkpoint knows of it: settings that came later must be at their defaults."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from training.test_controls import rewrite
from training.toy import equal, state, trainer
from unnoise.errors import UnnoiseError
from unnoise.training import checkpoint
from unnoise.training.identity import match, plain
from unnoise.training.trainer import Trainer


@dataclass(frozen=True)
class Shape:
    """A network's config that got a field since."""

    width: int
    sizes: tuple[int, ...] = (1, 2)
    later: float = 0.5


def lacking(folder: Path, *keys: str) -> Path:
    """A checkpoint of the toy training from before these settings were."""
    training = trainer(folder)
    next(training.run())
    path = training.save()
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    for key in keys:
        del manifest["identity"]["settings"][key]
    rewrite(path, manifest, forge=True)
    return path


def test_a_checkpoint_from_before_a_setting_is_taken(tmp_path: Path) -> None:
    path = lacking(tmp_path, "clip", "minutes", "keep")
    whole, resumed = trainer(tmp_path), trainer(tmp_path)
    list(whole.run())
    resumed.load(path)
    list(resumed.run())
    assert equal(state(whole), state(resumed))


def test_where_it_is_not_at_its_default_it_is_refused(tmp_path: Path) -> None:
    path = lacking(tmp_path, "clip")
    with pytest.raises(UnnoiseError, match=r"does not fit this training: settings.clip is 0.5, it began with 1.0"):
        trainer(tmp_path, clip=0.5).load(path)


def test_what_has_no_default_must_be_known(tmp_path: Path) -> None:
    """The control: ``batch`` is 4 here and 64 by default, so that a checkpoint without it is another training's."""
    with pytest.raises(UnnoiseError, match=r"settings.batch is 4, it began with 64"):
        trainer(tmp_path).load(lacking(tmp_path, "batch"))


def test_the_time_of_an_older_checkpoint_is_none(tmp_path: Path) -> None:
    path = lacking(tmp_path)
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    assert manifest.pop("seconds") > 0
    rewrite(path, manifest, forge=True)
    training = trainer(tmp_path)
    training.load(path)
    assert training.seconds == 0


def accepts(identity: Any, then: Any) -> bool:
    try:
        match(identity, then)
    except KeyError:
        return False
    return True


def test_records_within_an_identity_grow_too() -> None:
    here = {"recipe": "r", "network": Shape(8), "data": "d"}
    assert plain(here) == {"recipe": "r", "network": asdict(Shape(8)), "data": "d"}
    then = json.loads(json.dumps(plain(here)))
    assert accepts(here, then)
    del then["network"]["later"], then["network"]["sizes"]
    assert accepts(here, then)
    assert not accepts({**here, "network": Shape(8, later=0.6)}, then)
    assert not accepts({**here, "network": Shape(8, sizes=(1, 3))}, then)
    assert not accepts({**here, "network": Shape(9)}, then)
    assert not accepts(here, {**then, "more": 1}), "what is unknown here was another training"
    assert not accepts({**here, "more": 1}, then), "and what is no field has no default"
    del then["network"]["width"]
    assert not accepts(here, then), "nor has what must be given"


def test_identities_are_written_as_they_were(tmp_path: Path) -> None:
    """JSON of all fields, so that older programs read newer checkpoints of older settings."""
    training: Trainer = trainer(tmp_path)
    manifest = json.loads((training.save() / checkpoint.MANIFEST).read_text())
    assert manifest["identity"]["settings"]["averages"] == [0.1]
    assert manifest["identity"]["shapes"] == [[1, 2], [3]]
