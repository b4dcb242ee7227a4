"""From the command line: trainings with every term resume to the same bits, and draw."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from training.small import bits, build, command
from unnoise.cli.main import main
from unnoise.core.objective import Draws
from unnoise.core.registry import find, index
from unnoise.networks.unet import UNet, UNetConfig
from unnoise.recipes.terms import Terms, lasting

TERMS = {
    "emoji-ddpm": "--network.learned-variance --network.self-conditioning --uncertainty 16 --bound 0.002",
    "emoji-flow": "--network.self-conditioning --feedback 0.7 --contrast 0.05",
}
DRAWS = {"emoji-ddpm": "ddpm(learned)", "emoji-flow": "heun"}


@pytest.mark.parametrize("recipe", TERMS)
def test_resumed_trainings_end_with_the_same_bits_and_draw(
    recipe: str, world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    typed = TERMS[recipe].split()
    assert main([str(w) for w in command(recipe, world, whole, *typed, "--run.threads", 1)]) == 0
    short = command(recipe, world, broken, *typed, "--run.threads", 1, "--run.minutes", 0)
    assert main([str(w) for w in short]) == 130
    assert main(["train", "--resume", str(broken)]) == 0
    ours = bits(whole)
    assert bits(broken) == ours
    for file in sorted((whole / "model").iterdir()):
        assert (broken / "model" / file.name).read_bytes() == file.read_bytes(), file.name
    if recipe == "emoji-ddpm":
        kept = {name for name in ours if name.startswith("uncertainty")}
        assert {"uncertainty: weight", "uncertainty: rates", "uncertainty.optimiser: first/weight"} <= kept
        assert not any("average" in name for name in kept)
    capfd.readouterr()
    drawn = ["generate", "red square", "--model", str(whole), "--solver", DRAWS[recipe], "--steps", "3"]
    assert main([*drawn, "--out", str(tmp_path / "pictures"), "--seed", "1", "--threads", "1"]) == 0
    assert list((tmp_path / "pictures").glob("*.png"))


def test_a_checkpoint_is_of_its_terms(world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Resumed with other terms it is refused by name."""
    out = tmp_path / "run"
    first = command("emoji-ddpm", world, out, "--uncertainty", 16, "--run.threads", 1, "--run.minutes", 0)
    assert main([str(w) for w in first]) == 130
    capfd.readouterr()
    assert main(["train", "--resume", str(out), "--uncertainty", "8"]) == 1
    assert "uncertainty is 8, it began with 16" in capfd.readouterr().err


MISTAKES = {
    "emoji-flow --network.learned-variance": "a learned variance is that of a step between two levels of a table, and "
    "the path flow is none; train it with emoji-ddpm, or leave out --network.learned-variance",
    "emoji-flow --contrast 1": "contrast weight 1 is out of range; choose a number between 0 and 1",
    "emoji-flow --contrast 0.1 --uncertainty 8": "a contrast can make a level's loss negative, where a learned weight "
    "has no least value; choose one of uncertainty and contrast",
    "emoji-flow --uncertainty -1": "uncertainty features -1 is out of range",
    "emoji-flow --feedback 0.3": "feedback is set for a network without self-conditioning; add "
    "--network.self-conditioning",
    "emoji-ddpm --network.self-conditioning --feedback 0": "feedback share 0 is out of range; choose a number above 0",
    "emoji-ddpm --bound 0.1": "bound is set for a network without learned-variance; add --network.learned-variance",
    "emoji-ddpm --network.learned-variance --bound 0": "bound weight 0 is out of range; choose a number above 0",
    "emoji-ddpm --contrast 0.1": "there is no option --contrast",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_what_makes_no_sense_is_refused(
    typed: str, world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe, *options = typed.split()
    assert main([str(w) for w in command(recipe, world, tmp_path / "run", *options)]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"unnoise: {MISTAKES[typed]}"), line
    assert not (tmp_path / "run").exists(), "nothing is left"


@pytest.mark.parametrize("recipe", TERMS)
def test_splitting_a_batch_changes_no_row(recipe: str, world: Path) -> None:
    """The loss of a batch is the mean of its parts', with every term switched on."""
    training: Any = build(recipe, world, *TERMS[recipe].split())
    items = torch.tensor([0, 3, 5, 6])
    for step in range(3):
        losses = []
        for size in (4, 2):
            parts = []
            for start in range(0, 4, size):
                draws = Draws(0, step, 4, slice(start, start + size))
                with torch.no_grad():
                    parts.append(
                        training.objective.loss(training.data.batch(items[start : start + size], draws), draws)
                    )
            losses.append(torch.stack([part.total for part in parts]).mean())
        assert torch.allclose(losses[0], losses[1], rtol=1e-5), step


def test_what_is_off_leaves_no_trace(world: Path) -> None:
    """Trainings that began before a term existed have the identity that they would have now."""
    identity = build("emoji-flow", world).identity
    assert not set(identity) & set(vars(Terms()))
    on = build("emoji-flow", world, *TERMS["emoji-flow"].split()).identity
    assert on["network"].self_conditioning is True
    assert (on["contrast"], on["feedback"]) == (0.05, 0.7)


@dataclass(frozen=True)
class Grown(UNetConfig):
    """A config that got two more fields, of which one tells so."""

    added: float = field(default=0.5, metadata={"added": True})
    silent: float = 0.5


def test_what_came_later_leaves_no_trace_in_hashes() -> None:
    """A field that is added may have any default; what is off, and what is added and at its default, is left out."""
    network = UNet(tiny.UNET)
    before = lasting(network)
    assert "learned_variance" not in before["config"]
    assert before["config"]["width"] == tiny.UNET.width
    network.config = Grown(**vars(tiny.UNET))
    assert lasting(network)["config"] == before["config"] | {"silent": 0.5}, "the control: one that does not say so"
    network.config = replace(network.config, added=0.6, learned_variance=True)
    assert lasting(network)["config"] == before["config"] | {"silent": 0.5, "added": 0.6, "learned_variance": True}


def test_what_is_hashed_is_what_it_was() -> None:
    """The record in hashes of the first trainings; another one would refuse all their checkpoints."""
    config = {"channels_in": 4, "size": 16, "channels": 16, "blocks": 1, "width": 32, "depth": 1, "heads": 2}
    config |= {"text_width": 32, "embedding": 32}
    unet = {"name": "unet", "config": config}
    parts = tiny.components()
    assert lasting(parts["denoiser"]) == unet | {"path": "flow", "prediction": "flow", "noise_label": "time"}
    assert lasting(parts["denoiser"].network) == unet
    encoder, decoder = ((8, 1), (8, 1)), ((8, 1), (8, 1), (8, 1))
    config = {"latent_channels": 4, "encoder": encoder, "decoder": decoder}
    assert lasting(parts["autoencoder"]) == {"name": "kl", "config": config}


def test_no_field_of_a_config_came_unmarked() -> None:
    """These are the fields that are in the hashes of trainings of old; a new one is marked, as ``lasting`` says."""
    known = {
        "unet": "channels_in size channels blocks width depth heads text_width embedding learned_variance "
        "self_conditioning",
        "dit": "channels_in size patch width depth heads text_width embedding",
        "folded": "stride",
        "kl": "latent_channels encoder decoder",
        "clip-text": "vocabulary length width depth heads hidden activation end",
        "image-conv": "stages width",
        "pair": "text image width",
    }
    for kind in ("networks", "autoencoders", "encoders"):
        for name in index(kind):
            config = find(kind, name).Config
            unmarked = {each.name for each in fields(config) if not each.metadata.get("added")}
            assert name not in known or unmarked == set(known[name].split()), name  # what is new has no past
