"""A run's folder: what is logged, what is drawn, what comes out, and how it is gone on with."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.small import bits, command
from training.toy import ToyData, toy
from unnoise.cli.main import main
from unnoise.errors import UnnoiseError
from unnoise.training import checkpoint, probe, runner
from unnoise.training.logs import forget
from unnoise.training.runner import run
from unnoise.weights.model import load_model


def unnoise(*words: object) -> int:
    return main([str(word) for word in words])


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def scalars(folder: Path) -> dict[str, list[int]]:
    """The samples at which TensorBoard shows each number."""
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [event.step for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


@pytest.fixture(scope="module")
def flow(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of 120 samples: 30 steps, stopped after each part by the clock and resumed."""
    out = tmp_path_factory.mktemp("runs") / "flow"
    assert unnoise(*command("emoji-flow", world, out, samples=120, preview_every=64)) == 0
    return out


def test_what_lies_in_it(flow: Path) -> None:
    names = {path.name for path in flow.iterdir()} - {".lock"}
    assert names == {"run.json", "checkpoints", "metrics.jsonl", "tensorboard", "previews", "model"}
    record = json.loads((flow / "run.json").read_text())
    assert record["recipe"] == "emoji-flow"
    assert "--train.samples" in record["arguments"]
    assert not [word for word in record["arguments"] if word.startswith(("--run.out", "--run.resume"))]


def test_metrics_tell_each_step(flow: Path) -> None:
    logged = rows(flow)
    assert [row["step"] for row in logged] == list(range(1, 31))
    assert [row["samples"] for row in logged] == list(range(4, 121, 4))
    for row in logged:
        assert {"rate", "gradient_norm", "seconds", "skipped", "denoising"} <= row.keys()
        assert all(math.isfinite(value) for value in row.values())
    assert {key for row in logged for key in row if "log-snr" in key} == {
        f"denoising/log-snr {name}" for name in ("-inf..-2", "-2..-0.7", "-0.7..0.7", "0.7..2", "2..inf")
    }


def test_tensorboard_tells_every_tenth(flow: Path) -> None:
    shown = scalars(flow)
    assert shown["denoising"] == shown["rate"] == [40, 80, 120]
    assert "seconds" not in shown


def test_previews_are_drawn(flow: Path) -> None:
    assert sorted(path.name for path in (flow / "previews").iterdir()) == [
        "samples-00000064.png",
        "samples-00000120.png",
    ]
    for path in (flow / "previews").iterdir():
        with Image.open(path) as image:
            assert image.size == (4 * 132 + 4, 4 * 132 + 4), "sixteen pictures"


def test_the_model_has_the_averages(flow: Path) -> None:
    modules, record = load_model(flow / "model", ["autoencoder", "text", "denoiser"])
    (told,) = record["trained"]["denoiser"]
    assert (told["recipe"], told["samples"], told["batch"]) == ("emoji-flow", 120, 4)
    _, files = checkpoint.read(checkpoint.checkpoints(flow / "checkpoints")[-1])
    for part, file in ((modules["denoiser"].network, "denoiser"), (modules["text"], "text")):
        for name, weight in part.named_parameters():
            assert torch.equal(weight, files[f"{file}.average-0.1"][name].bfloat16().float()), name


def test_a_training_that_starts_from_a_model(
    flow: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--init``: its weights, its encoders, its tokenizer; refused where the model is of another kind."""
    args = [str(word) for word in command("emoji-flow", world, tmp_path / "run", "--init", flow, "--run.minutes", 0)]
    for name in ("--autoencoder", "--text"):
        place = args.index(name)
        del args[place : place + 2]
    refused = ["train", "emoji-ddpm", *args[2:]]
    assert main(args) == 130
    _, files = checkpoint.read(tmp_path / "run" / "checkpoints" / "step-00000000")
    modules, _ = load_model(flow / "model", ["text", "denoiser"])
    for part, file in ((modules["denoiser"].network, "denoiser"), (modules["text"], "text")):
        assert all(torch.equal(files[file][name], weight) for name, weight in part.state_dict().items())
    capsys.readouterr()
    assert main([*refused, "--run.out", str(tmp_path / "other")]) == 1
    assert capsys.readouterr().err.startswith("unnoise: --init has another path: flow, not cosine; ")


def test_it_is_not_begun_twice(flow: Path, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = bits(flow), rows(flow), (flow / "run.json").read_bytes()
    assert unnoise(*command("emoji-flow", world, flow)) == 1
    hint = "add --run.resume to go on with it, or name another --run.out"
    assert capsys.readouterr().err == f"unnoise: {flow} holds a training already; {hint}\n"
    assert before == (bits(flow), rows(flow), (flow / "run.json").read_bytes())


# going on


def test_longer_than_planned(world: Path, tmp_path: Path) -> None:
    """A finished training is told a greater length: it goes on, the model is a new one, and it is remembered."""
    out = tmp_path / "run"
    assert unnoise(*command("emoji-text", world, out)) == 0
    before = (out / "model" / "text-01-of-01.safetensors").read_bytes()
    assert unnoise("train", "--resume", out, "--train.samples", 80, "--train.keep", 1, "--run.minutes", 0) == 130
    assert len(rows(out)) == 13
    assert unnoise("train", "--resume", out) == 0
    assert len(rows(out)) == 20
    assert [c.name for c in checkpoint.checkpoints(out / "checkpoints")] == ["step-00000020"]
    assert (out / "model" / "text-01-of-01.safetensors").read_bytes() != before
    assert not list(out.glob(".partial*"))
    whole = tmp_path / "whole"
    assert unnoise(*command("emoji-text", world, whole, samples=80)) == 0
    assert bits(whole).keys() == bits(out).keys()
    assert bits(whole) != bits(out), "the first length's cool-down was gone through"


@pytest.mark.parametrize("change", [{"train.batch": 8}, {"train.rate": 0.5}, {"width": 24}, {"train.seed": 4}])
def test_other_changes_are_refused(
    change: dict[str, object], world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert unnoise(*command("emoji-text", world, out, "--run.minutes", 0)) == 130
    before = bits(out), (out / "run.json").read_bytes(), rows(out)
    capsys.readouterr()
    ((name, value),) = change.items()
    assert unnoise("train", "--resume", out, f"--{name}", value) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"unnoise: {checkpoint.latest(out / 'checkpoints')} does not fit this training: ")
    assert said.endswith("; resume with the settings it began with\n")
    assert before == (bits(out), (out / "run.json").read_bytes(), rows(out)), "nothing is touched, nothing remembered"


def test_other_encoders_are_refused(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even where the text tower is not trained and so is in no checkpoint."""
    from training import small
    from unnoise.weights.model import save_model

    parts, _ = load_model(world / "encoders", ["autoencoder", "text"])
    with torch.no_grad():
        parts["text"].norm.weight.add_(0.5)
    save_model(tmp_path / "other", parts, {}, {"tokenizer.json": small.words().json}, torch.float32)
    out = tmp_path / "run"
    assert unnoise(*command("emoji-flow", world, out, "--text-rate", 0, "--run.minutes", 0)) == 130
    capsys.readouterr()
    assert unnoise("train", "--resume", out, "--text", tmp_path / "other") == 1
    assert "does not fit this training: given.text is " in capsys.readouterr().err


@pytest.mark.parametrize("left", ["nothing", "a folder", "a damaged checkpoint"])
def test_nothing_to_go_on_with(left: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    if left != "nothing":
        out.mkdir()
    if left == "a damaged checkpoint":
        (out / "checkpoints" / "step-00000004").mkdir(parents=True)
        (out / "checkpoints" / "step-00000004" / checkpoint.MANIFEST).write_text("{}")
    assert unnoise(*command("emoji-text", world, out, "--run.resume")) == 1
    assert capsys.readouterr().err == f"unnoise: {out} has no whole checkpoint to resume; start without --run.resume\n"
    assert unnoise("train", "--resume", out) == 1
    assert capsys.readouterr().err.startswith(f"unnoise: no training at {out}; ")
    assert out.exists() == (left != "nothing")


def test_a_damaged_newest_is_said(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert unnoise(*command("emoji-text", world, out)) == 0
    (out / "checkpoints" / "step-00000012" / "pair.safetensors").unlink()
    capsys.readouterr()
    assert unnoise("train", "--resume", out) == 0
    assert "note: step-00000012 is damaged or not finite and was passed over" in capsys.readouterr().err
    assert [row["step"] for row in rows(out)] == list(range(1, 13)), "each step stands once"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"recipe": "emoji-text"}'])
def test_a_damaged_record(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text(damage)
    assert unnoise("train", "--resume", tmp_path) == 1
    said = f"unnoise: {tmp_path / 'run.json'} is damaged; start the training with its recipe and --run.resume\n"
    assert capsys.readouterr().err == said


def test_precision_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed training computes as it began, whatever a trial would say today."""
    times = {torch.float32: 1.0, torch.bfloat16: 0.5}
    monkeypatch.setattr(probe, "seconds", lambda device, dtype, patience=0.0: times[dtype])

    def trained(folder: Path, resume: bool) -> str:
        run(toy(), folder, dtype=None, resume=resume, say_every=1e9, minutes=0 if not resume else None)
        return ""

    with pytest.raises(runner.Stopped):
        trained(tmp_path, False)
    times[torch.bfloat16] = 2.0
    trained(tmp_path, True)
    last = checkpoint.latest(tmp_path / "checkpoints")
    assert last is not None
    assert checkpoint.verify(last)["machine"]["dtype"] == "bfloat16"


def test_another_thread_count_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["train", "toy", "--train.samples", 24, "--run.dtype", "float32", "--run.out", tmp_path]
    threads = torch.get_num_threads()
    try:
        assert unnoise(*args, "--run.minutes", 0, "--run.threads", 1) == 130
        assert unnoise("train", "--resume", tmp_path, "--run.threads", 2) == 0
    finally:
        torch.set_num_threads(threads)
    assert "note: threads is 2, it began with 1: the bits may differ from an unbroken run" in capsys.readouterr().err


# logs


def test_bad_steps_are_logged_without_numbers(tmp_path: Path) -> None:
    run(toy(ToyData({4})), tmp_path, say_every=1e9)
    logged = rows(tmp_path)
    assert [row["skipped"] for row in logged] == [number == 4 for number in range(12)]
    assert logged[4]["net"] is None
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[4], parse_constant=pytest.fail)


def test_twenty_bad_steps_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["toy", "--train.samples", 400, "--bad-from", 5, "--run.dtype", "float32", "--run.out", tmp_path]
    assert unnoise("train", *args) == 1
    said = "20 steps on end gave numbers that are not finite (step 25); start again with a lower rate and matrix_rate"
    last = checkpoint.latest(tmp_path / "checkpoints")
    assert last is not None
    assert checkpoint.verify(last)["step"] == 25, "what was learnt before them is not lost"
    saved = f"note: saved as {last}; go on with `unnoise train --resume {tmp_path}`"
    assert capsys.readouterr().err.splitlines() == [saved, f"unnoise: {said}"]
    assert len(rows(tmp_path)) == 24


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"samples": 4}\n{"samples": 8}\n{"samples": 12}\n', '{"samples": 4}\n{"samples": 8}\n'),
        ('{"samples": 4}\n{"samples": 8}\n{"samp', '{"samples": 4}\n{"samples": 8}\n'),
        ('{"samples": 4}\n{"samples": 8}', '{"samples": 4}\n'),
        ('{"samples": 4}\n', '{"samples": 4}\n'),
        ("\x00\x00", ""),
        ("", ""),
    ],
)
def test_what_a_killed_training_logged_too_much(text: str, kept: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    forget(path, 8)
    assert not path.exists()
    path.write_text(text)
    forget(path, 8)
    assert path.read_text() == kept


def test_a_resumed_board_shows_each_step_once(tmp_path: Path) -> None:
    """What was shown after the checkpoint that a killed training goes on from is taken back."""
    run(toy(samples=120), tmp_path, say_every=1e9)
    for path in checkpoint.checkpoints(tmp_path / "checkpoints")[-1:]:
        (path / checkpoint.MANIFEST).unlink()  # as if killed after the last checkpoint but one, at sample 112
    run(toy(samples=120), tmp_path, resume=True, say_every=1e9)
    assert scalars(tmp_path)["net"] == [40, 80, 120]


@pytest.mark.parametrize("text", ["loss 0.5 [bold]x", "x" * 300])
def test_a_line_is_a_line(text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from unnoise.training.report import Report

    with Report(tmp_path, 10, 0, tensorboard=False) as report:
        report.say(text)
    assert capfd.readouterr().err == f"{text}\n"


@pytest.mark.parametrize(
    ("until", "told"),
    [
        (None, r"8 of 1000 samples .*  ETA 0:04:08\n"),
        (1e6, r"8 of 1000 samples .*  ETA 0:04:08\n"),
        (100.0, r"8 samples .*  stops in 0:01:38\n"),
    ],
)
def test_a_line_says_when_it_ends_or_is_stopped(
    until: float | None, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from unnoise.training import report as reports
    from unnoise.training.report import Report
    from unnoise.training.trainer import TrainStep

    with Report(tmp_path, 1000, 0, every=-math.inf, tensorboard=False, until=until) as report:
        monkeypatch.setattr(reports, "time", SimpleNamespace(monotonic=lambda: 2.0))
        report.step(TrainStep(1, 8, {}, 1.0, 1.0, False, 2.0))
    assert re.fullmatch(told, capfd.readouterr().err)


def test_a_preview_that_fails_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    def fails(parts: object) -> torch.Tensor:
        raise UnnoiseError("the prompt has 40 tokens, the model reads 30", "use fewer words")

    training = replace(toy(samples=16, preview_every=8), preview=fails)
    run(training, tmp_path, say_every=1e9)
    lines: Sequence[str] = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("note: no preview: the prompt has 40 tokens") for line in lines) == 1, "said once"
