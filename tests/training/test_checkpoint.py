"""Checkpoints: what is kept, what is passed over, what is never deleted."""

from __future__ import annotations

import json
import random
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.toy import ToyData, equal, state, trainer
from unnoise.errors import UnnoiseError
from unnoise.files import _apart, alone
from unnoise.training import checkpoint


def write(folder: Path, step: int, value: float = 1.0) -> Path:
    tensors: dict[str, dict[str, Tensor]] = {"net": {"a": torch.tensor([0.0, value]), "n": torch.tensor(3)}}
    return checkpoint.write(folder, step, {}, tensors)


def damage(path: Path, how: str) -> None:
    file = path / "net.safetensors"
    if how == "torn":
        file.write_bytes(file.read_bytes()[:-3])
    elif how == "gone":
        file.unlink()
    else:
        (path / checkpoint.MANIFEST).unlink()


@pytest.mark.parametrize("seed", range(4))
def test_the_last_healthy_checkpoint_is_never_deleted(seed: int, tmp_path: Path) -> None:
    """Any story of good saves, numbers that are none, damage and sweeping up leaves what was last good."""
    story, last = random.Random(seed), None
    keep = story.choice([1, 2, 3])
    for step in range(1, 41):
        chance = story.random()
        path = write(tmp_path, step, float("nan") if chance < 0.3 else float("inf") if chance < 0.4 else float(step))
        if chance > 0.7 and (last is not None or chance > 0.9):
            damage(path, story.choice(["torn", "gone", "bare"]))
        good = chance >= 0.4 and checkpoint.healthy(path)
        last = path if good else last
        before = {p.name for p in checkpoint.checkpoints(tmp_path)}
        checkpoint.retain(tmp_path, keep, path)
        kept = checkpoint.checkpoints(tmp_path)
        assert checkpoint.latest(tmp_path) == last
        if good:
            assert kept[-1] == last
            assert len(kept) <= keep
            assert all(checkpoint.healthy(each) for each in kept)
        else:
            assert {p.name for p in kept} == before, "while the newest is not healthy nothing is deleted"


def test_older_ones_are_deleted_after_the_new_one_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        write(tmp_path, step)
    newest = write(tmp_path, 3)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "verify", lambda path: (_ for _ in ()).throw(UnnoiseError("unreadable")))
        checkpoint.retain(tmp_path, 1, newest)
    assert len(checkpoint.checkpoints(tmp_path)) == 3
    checkpoint.retain(tmp_path, 1, newest)
    assert checkpoint.checkpoints(tmp_path) == [newest]


def test_training_never_keeps_less_than_one(tmp_path: Path) -> None:
    with pytest.raises(UnnoiseError, match="keep 0 is out of range; choose a whole number, 1 or more"):
        trainer(tmp_path, keep=0)
    training = trainer(tmp_path, keep=1)
    for _ in training.run():
        training.save()
        assert len(checkpoint.checkpoints(tmp_path)) == 1


def test_a_checkpoint_is_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(UnnoiseError, match="already exists"):
        write(tmp_path, 1, 2.0)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


@pytest.mark.parametrize("how", ["torn", "gone", "bare"])
def test_a_damaged_one_is_passed_over_and_written_again(how: str, tmp_path: Path) -> None:
    training = trainer(tmp_path)
    for step in training.run():
        if step.step in (4, 8):
            damaged = training.save()
    end = state(training)
    damage(damaged, how)
    last = checkpoint.latest(tmp_path)
    assert last is not None
    assert last.name == "step-00000004"
    again = trainer(tmp_path)
    again.load(last)
    for step in again.run():
        if step.step == 8:
            assert again.save() == damaged
            assert checkpoint.healthy(damaged), "what was damaged is whole again"
    assert equal(state(again), end)


def test_one_that_is_not_finite_is_passed_over(tmp_path: Path) -> None:
    good = write(tmp_path, 1)
    write(tmp_path, 2, float("nan"))
    assert checkpoint.latest(tmp_path) == good


def test_scratch_folders_are_no_checkpoints_and_are_swept(tmp_path: Path) -> None:
    training = trainer(tmp_path)
    left = tmp_path / ".partial-step-00000000-abc"
    left.mkdir()
    (left / checkpoint.MANIFEST).write_text("{}")
    (tmp_path / "step-1").mkdir()
    assert checkpoint.checkpoints(tmp_path) == []
    training.save()
    assert not left.exists()


def test_only_json_and_safetensors(tmp_path: Path) -> None:
    path = trainer(tmp_path).save()
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}
    assert {file.name for file in path.iterdir()} == {
        "manifest.json",
        "net.safetensors",
        "net.optimiser.safetensors",
        "net.average-0.1.safetensors",
        "scale.safetensors",
        "scale.optimiser.safetensors",
    }


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(UnnoiseError, match="has format 2, this program reads 1; use the unnoise that wrote it"):
        checkpoint.verify(path)


NO_NUMBERS = ['{"format": "x", "files": {}}', '{"format": Infinity, "files": {}}']


@pytest.mark.parametrize("text", ["", "[]", "null", '{"format": 1}', *NO_NUMBERS, "\x00", "[" * 100_000])
def test_a_manifest_that_is_none(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    (path / checkpoint.MANIFEST).write_text(text)
    with pytest.raises(UnnoiseError, match="is damaged; use an older checkpoint"):
        checkpoint.verify(path)


def test_files_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    outside = write(tmp_path, 1) / "net.safetensors"
    path = write(tmp_path, 2)
    manifest = checkpoint.verify(path)
    manifest["files"]["../step-00000001/net.safetensors"] = checkpoint.sha256(outside)
    (path / checkpoint.MANIFEST).write_text(json.dumps({**manifest, "sha256": checkpoint._digest(manifest)}))
    with pytest.raises(UnnoiseError, match="missing or damaged"):
        checkpoint.read(path)


def test_a_file_that_is_no_safetensors(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    (path / "net.safetensors").write_bytes(b"\x80\x04pickle")
    manifest = checkpoint.verify(write(tmp_path, 2)) | {"step": 1}
    manifest["files"] = {"net.safetensors": checkpoint.sha256(path / "net.safetensors")}
    (path / checkpoint.MANIFEST).write_text(json.dumps({**manifest, "sha256": checkpoint._digest(manifest)}))
    with pytest.raises(UnnoiseError, match="cannot be read"):
        checkpoint.read(path)


def test_two_trainings_cannot_share_a_folder(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(UnnoiseError, match=f"a training is running in {tmp_path}; "), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 8}, "settings.batch is 8, it began with 4"),
        ({"rate": 0.5}, "settings.rate is 0.5, it began with 0.001"),
        ({"seed": 1}, "settings.seed is 1, it began with 0"),
        ({"micro_batch": 4}, "settings.micro_batch is 4, it began with 2"),
        ({"averages": (0.1, 0.2)}, r"settings.averages is \[0.1, 0.2\], it began with \[0.1\]"),
    ],
)
def test_other_settings_are_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    path = trainer(tmp_path).save()
    with pytest.raises(UnnoiseError, match=f"{path} does not fit this training: {said}; resume with the settings"):
        trainer(tmp_path, **change).load(path)


def test_other_data_are_refused(tmp_path: Path) -> None:
    path = trainer(tmp_path).save()
    data = ToyData()
    data.identity = "another"
    with pytest.raises(UnnoiseError, match="data is 'another', it began with 'toy'"):
        trainer(tmp_path, data).load(path)


@pytest.mark.parametrize("key", ["torch", "threads", "processor", "dtype"])
def test_another_machine_is_said(key: str, tmp_path: Path) -> None:
    path = trainer(tmp_path).save()
    other = trainer(tmp_path)
    other.machine = other.machine | {key: "another"}
    other.load(path)
    (warning,) = other.warnings
    assert warning.startswith(f"{key} is another, it began with ")
    assert warning.endswith("the bits may differ from an unbroken run")


def test_a_checkpoint_is_never_in_memory_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tensors are looked at one by one; the control holds them all."""
    kinds = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]
    tensors = {f"t{number}": torch.full((10, 100), float(number)).to(kinds[number % 5]) for number in range(9)}
    path = checkpoint.write(tmp_path, 1, {}, {"net": tensors})
    living: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most, get = [0], checkpoint.Saved.__getitem__

    def counted(self: checkpoint.Saved, name: str) -> Tensor:
        tensor = get(self, name)
        living.add(tensor)
        most.append(len(living))
        return tensor

    monkeypatch.setattr(checkpoint.Saved, "__getitem__", counted)
    assert checkpoint.healthy(path)
    assert len(most) == 1 + len(tensors)
    assert max(most) <= 2
    everything = dict(checkpoint.read(path)[1]["net"])
    assert max(most) == len(tensors), "control"
    for name, tensor in tensors.items():
        assert everything[name].dtype == tensor.dtype
        assert torch.equal(everything[name].float(), tensor.float())
    with pytest.raises(KeyError):
        checkpoint.read(path)[1]["net"]["t9"]


def test_only_what_must_be_is_copied_to_be_written() -> None:
    plain, turned, other = torch.zeros(2, 3), torch.zeros(3, 2).mT, torch.ones(4)
    written = _apart({"plain": plain, "turned": turned, "other": other, "again": other, "part": torch.zeros(8)[:2]})
    assert written["plain"].data_ptr() == plain.data_ptr()
    assert written["other"].data_ptr() == other.data_ptr()
    assert written["again"].data_ptr() != other.data_ptr()
    assert all(t.is_contiguous() and t.untyped_storage().nbytes() == t.nbytes for t in written.values())
    assert torch.equal(written["turned"], turned)
