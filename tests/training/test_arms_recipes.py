"""What a denoiser may be: another network, another space, another prediction; each is trained, saved and drawn with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from training.small import build, command
from unnoise.cli.main import main
from unnoise.core.objective import Draws
from unnoise.core.registry import find
from unnoise.data.store import open_set
from unnoise.engine.load import load_engine
from unnoise.networks.dit import DiT
from unnoise.paths.flow import Flow
from unnoise.pictures import from_bytes
from unnoise.recipes.flow import FLOW_DEFAULTS, SHORT_OF_NOISE
from unnoise.training.trainer import Trainer

ARMS = {
    "emoji-flow --prediction data": ("kl", "unet, path flow, prediction data, noise label time"),
    "emoji-flow --prediction noise": ("kl", "unet, path flow, prediction noise, noise label time"),
    "emoji-dit": ("kl", "dit, path flow, prediction flow, noise label time"),
    "emoji-pixels": ("folded", "unet, path flow, prediction data, noise label time"),
    "emoji-pixels --text-rate 0": ("folded", "unet, path flow, prediction data, noise label time"),
}


@pytest.mark.parametrize("arm", ARMS)
def test_each_is_trained_saved_told_and_drawn_with(
    arm: str, world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe, *options = arm.split()
    space, network = ARMS[arm]
    out = tmp_path / "run"
    typed = command(recipe, world, out, *options, samples=8)
    assert main([str(word) for word in [*typed, "--run.minutes", 0]]) == 130
    assert main(["train", "--resume", str(out)]) == 0
    capfd.readouterr()
    assert main(["inspect", str(out)]) == 0
    said = capfd.readouterr().out
    assert "an unnoise model: autoencoder, text tower and denoiser" in said
    assert f"  autoencoder: {space}, dtype " in said
    kind, rest = network.split(", ", 1)
    assert re.search(rf"^  denoiser: {kind}, dtype \w+, {rest}$", said, re.MULTILINE)
    drawn = ["generate", "red square", "--model", str(out), "--steps", "2", "--seed", "1"]
    assert main([*drawn, "--out", str(tmp_path / "pictures")]) == 0
    (picture,) = (tmp_path / "pictures").glob("*.png")
    assert main([*drawn, "--start", str(picture), "--strength", "0.5", "--out", str(tmp_path / "more")]) == 0
    assert len(list((tmp_path / "more").glob("*.png"))) == 1
    assert main(["replay", str(picture), "--model", str(out)]) == 0
    assert ": equal, every pixel is the same" in capfd.readouterr().out


def test_predicted_noise_starts_short_of_pure_noise(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By itself; asked to start where the signal is nil it is refused in a line. The others start there."""
    for said, spacing in (("noise", SHORT_OF_NOISE), ("flow", "beta"), ("data", "beta"), ("v", "beta")):
        info: Any = build("emoji-flow", world, "--prediction", said).info
        assert info["defaults"] == {**FLOW_DEFAULTS, "spacing": spacing}
    levels = load_spacing().levels(Flow(), 20)
    assert (levels[0].alpha, levels[0].sigma) == pytest.approx((1 / 81, 80 / 81))
    out = tmp_path / "run"
    assert main([str(word) for word in command("emoji-flow", world, out, "--prediction", "noise", samples=4)]) == 0
    capfd.readouterr()
    assert main(["generate", "bar", "--model", str(out), "--spacing", "beta", "--out", str(tmp_path)]) == 1
    (line,) = capfd.readouterr().err.splitlines()[-1:]
    assert "noise prediction cannot be inverted at alpha = 0" in line


def load_spacing() -> Any:
    from unnoise.core.notation import make

    return make("spacings", SHORT_OF_NOISE)


def test_trainings_from_before_there_was_a_choice_go_on(world: Path) -> None:
    """What is as it was leaves no trace, whatever alias it is called by; what is not, does."""
    plain = build("emoji-flow", world).identity
    assert "prediction" not in plain
    assert build("emoji-flow", world, "--prediction", "velocity").identity == plain
    assert build("emoji-flow", world, "--prediction", "x0").identity == {**plain, "prediction": "data"}


def test_the_velocity_s_loss_is_as_it_was(world: Path) -> None:
    """The new weight of the old prediction is 1: totals are the plain mean, to the bit."""
    training: Any = build("emoji-flow", world)
    draws = Draws(0, 3, 4, slice(None))
    with torch.no_grad():
        loss = training.objective.loss(training.data.batch(torch.tensor([0, 3, 5, 6]), draws), draws)
    assert torch.equal(loss.total, loss.per_sample.mean())
    other: Any = build("emoji-flow", world, "--prediction", "data")
    with torch.no_grad():
        loss = other.objective.loss(other.data.batch(torch.tensor([0, 3, 5, 6]), draws), draws)
    assert not torch.allclose(loss.total, loss.per_sample.mean(), rtol=0.1)


def test_pixels_are_trained_as_they_are_and_not_kept(world: Path) -> None:
    kept = set((world / "pictures" / "cache").glob("*"))
    training: Any = build("emoji-pixels", world)
    rows = torch.tensor([1, 4])
    x0 = training.data.batch(rows, Draws(0, 0, 2, slice(None)))["x0"]
    pictures = open_set(world / "pictures")
    items = torch.tensor(pictures.select("denoiser"))[rows]
    folded = training.finish({"denoiser": training.objective.denoiser.network})["autoencoder"]
    assert torch.equal(x0, folded.encode(from_bytes(pictures.pictures(items.tolist()))).mean)
    assert torch.equal((folded.decode(x0) * 127.5 + 127.5).round(), pictures.pictures(items.tolist()).float())
    assert set((world / "pictures" / "cache").glob("*")) == kept
    assert float(x0.std()) == pytest.approx(1, abs=0.5)


def test_the_transformer_learns(world: Path, tmp_path: Path) -> None:
    """Gates and branches both move: nothing of the network is left as it began."""
    training = build("emoji-dit", world, samples=24)
    trainer = Trainer(training.objective, training.data, training.settings, tmp_path)
    network: Any = training.objective.denoiser.network  # type: ignore[attr-defined]
    assert isinstance(network, DiT)
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    for _ in trainer.run():
        pass
    still = [name for name, weight in network.named_parameters() if torch.equal(weight, before[name])]
    assert not [name for name in still if "cross" not in name and "norm2" not in name], still


def test_a_finished_one_goes_on_as_a_folder_s(world: Path, tmp_path: Path) -> None:
    """Trained further on pictures of one's own, it keeps its network, its space and what it says."""
    out = tmp_path / "run"
    assert main([str(word) for word in command("emoji-pixels", world, out, samples=4)]) == 0
    further = ["train", "folder", "--data", world / "pictures", "--init", out, "--train.samples", 4, "--train.batch", 4]
    assert main([str(word) for word in [*further, "--run.out", tmp_path / "more", "--run.dtype", "float32"]]) == 0
    engine = load_engine(tmp_path / "more")
    assert engine.model.autoencoder.name == "folded"  # type: ignore[attr-defined]
    assert isinstance(engine.model.denoiser.prediction, find("predictions", "data"))


def test_a_network_that_does_not_fit_is_refused(world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mistakes = {
        "emoji-pixels --network.channels-in 4": "the network's channels_in is 4, its data have 192; set channels_in to",
        "emoji-dit --network.patch 3": "emoji-dit cannot be built as set: 16 cells in patches of 3, or a width of 16",
        "emoji-dit --prediction pictur": "no prediction is called 'pictur'",
        "emoji-pixels --prediction ''": "no prediction is called",
    }
    for typed, said in mistakes.items():
        recipe, *options = typed.replace("''", "").split(" ")
        assert main([str(word) for word in command(recipe, world, tmp_path / "run", *options)]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"unnoise: {said}"), line
    assert not (tmp_path / "run").exists()
