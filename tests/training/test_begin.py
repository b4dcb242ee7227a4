"""Trainings that start from trained folders: what is taken over, what is kept, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.small import command
from unnoise.cli.main import main
from unnoise.engine.load import model_folder
from unnoise.weights.model import load_model


@pytest.fixture(scope="module")
def begun(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny finished training of each recipe that others of its kind can start from."""
    out = tmp_path_factory.mktemp("begun")
    for recipe in ("emoji-autoencoder", "emoji-judge"):
        assert main([str(word) for word in command(recipe, world, out / recipe)]) == 0
    return {recipe: out / recipe for recipe in ("emoji-autoencoder", "emoji-judge")}


def more(recipe: str, world: Path, out: Path, *options: object) -> int:
    return main([str(word) for word in command(recipe, world, out, *options)])


@pytest.mark.parametrize("keep", [True, False])
def test_a_decoder_alone(keep: bool, world: Path, begun: dict[str, Path], tmp_path: Path) -> None:
    """With --keep-latents the encoder and the latents' scale keep their bits and the decoder moves; else all moves."""
    options = ["--init", begun["emoji-autoencoder"], *(["--keep-latents"] if keep else [])]
    assert more("emoji-autoencoder", world, tmp_path / "run", *options) == 0
    before, _ = load_model(model_folder(begun["emoji-autoencoder"]), ["autoencoder"])
    after, record = load_model(model_folder(tmp_path / "run"), ["autoencoder"])
    old, new = before["autoencoder"].state_dict(), after["autoencoder"].state_dict()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert any(name.startswith("decoder.") for name in moved)
    assert any(not name.startswith("decoder.") for name in moved) is not keep
    told = record["trained"]["autoencoder"]
    assert [("kept" in each) for each in told] == [False, keep], "the folder tells both trainings"


def test_a_judge_goes_on(world: Path, begun: dict[str, Path], tmp_path: Path) -> None:
    """At rates of nothing what comes out is what went in."""
    still = ["--train.rate", 0, "--train.matrix-rate", 0]
    assert more("emoji-judge", world, tmp_path / "run", "--init", begun["emoji-judge"], *still) == 0
    before, _ = load_model(model_folder(begun["emoji-judge"]), ["text", "image", "pair"])
    after, record = load_model(model_folder(tmp_path / "run"), ["text", "image", "pair"])
    for name in before:
        old, new = before[name].state_dict(), after[name].state_dict()
        assert all(torch.allclose(old[key].float(), new[key].float(), atol=1e-2, rtol=1e-2) for key in old)
    assert len(record["trained"]["judge"]) == 2


MISTAKES = {
    ("emoji-autoencoder", "--keep-latents"): "--keep-latents keeps those of --init, and none is named",
    ("emoji-autoencoder", "--init nowhere"): "no model at nowhere",
    ("emoji-autoencoder", "--init ae --network.latent-channels 2"): "--init has another autoencoder: ",
    ("emoji-judge", "--init judge --text.width 32"): "--init has another text: ",
    ("emoji-judge", "--init judge --text.vocabulary 301"): "--init has another text: ",
    ("emoji-judge", "--group 0"): "group is 0, the rows of a group; choose 1 or more",
}


@pytest.mark.parametrize(("recipe", "typed"), MISTAKES)
def test_mistakes_are_told_in_one_line(
    recipe: str, typed: str, world: Path, begun: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    known = {"ae": begun["emoji-autoencoder"], "judge": begun["emoji-judge"]}
    assert more(recipe, world, tmp_path / "run", *(known.get(word, word) for word in typed.split())) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"unnoise: {MISTAKES[recipe, typed]}"), line
    assert not (tmp_path / "run").exists(), "nothing is left"


@pytest.mark.slow
def test_a_denoiser_goes_with_any_decoder_of_its_latents(
    world: Path, begun: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Trained further with a decoder that was trained alone it has that decoder; other latents are refused."""

    def flow(out: Path, autoencoder: Path, *options: object) -> int:
        words = [str(word) for word in command("emoji-flow", world, out, *options)]
        own = words.index("--autoencoder")
        words[own + 1] = str(autoencoder)
        if "--init" in words:
            text = words.index("--text")
            del words[text : text + 2]
        return main(words)

    first = begun["emoji-autoencoder"]
    assert more("emoji-autoencoder", world, tmp_path / "decoder", "--init", first, "--keep-latents") == 0
    assert more("emoji-autoencoder", world, tmp_path / "all", "--init", first) == 0
    assert flow(tmp_path / "one", first) == 0
    assert flow(tmp_path / "two", tmp_path / "decoder", "--init", tmp_path / "one") == 0
    (wanted, _), (got, _) = (load_model(model_folder(tmp_path / name), ["autoencoder"]) for name in ("decoder", "two"))
    wanted, got = wanted["autoencoder"].state_dict(), got["autoencoder"].state_dict()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    capfd.readouterr()
    assert flow(tmp_path / "three", tmp_path / "all", "--init", tmp_path / "one") == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("unnoise: --autoencoder makes other latents than the denoiser of --init knows; ")
