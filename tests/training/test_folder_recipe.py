"""Own pictures: trained further from a model or from scratch, watched, and told of before it begins."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import tiny
from training import small
from training.jobs import Server
from training.test_resume import same
from training.toy import toy
from unnoise.autoencoders.kl import KLAutoencoder
from unnoise.cli.main import main
from unnoise.cli.runs import look as told_of
from unnoise.core.registry import find, index
from unnoise.data.store import open_set
from unnoise.data.write import Row, write_set
from unnoise.engine.load import default_model, load_engine
from unnoise.engine.words import WORDS, read_vocabulary, vocabulary
from unnoise.networks.unet import UNetConfig
from unnoise.recipes.folder import SCALES, fresh
from unnoise.recipes.latent import encode_captions
from unnoise.recipes.watched import EvenLevels, at_once, copies, spread, strange_to
from unnoise.study.distances import Figure
from unnoise.study.memorisation import copied, nearest, singled_out, thumbnails
from unnoise.training.runner import run
from unnoise.weights.config import from_json
from unnoise.weights.model import load_model
from unnoise.weights.record import read_record


@pytest.fixture(scope="module")
def photos(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``pictures`` of which six are kept back, and the ``encoders`` of the world."""
    folder = tmp_path_factory.mktemp("photos")
    small.picture_set(folder / "pictures", kept=6)
    (folder / "encoders").symlink_to(world / "encoders")
    return folder


@pytest.fixture(scope="module")
def model(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole tiny training from scratch."""
    out = tmp_path_factory.mktemp("runs") / "scratch"
    assert unnoise(*small.command("folder", photos, out, preview_every=24, watch_every=16)) == 0
    return out


def unnoise(*words: object) -> int:
    return main([str(word) for word in words])


def further(init: Path, photos: Path, out: Path, *more: object) -> list[str]:
    """What is typed to train a model further."""
    args = [str(word) for word in small.command("folder", photos, out, *more)]
    for flag in ("--autoencoder", "--text", "--size"):
        place = args.index(flag)
        del args[place : place + 2]
    args[args.index("--init") + 1] = str(init)
    return args


def words(folder: Path) -> frozenset[str]:
    return read_vocabulary((folder / "model" / WORDS).read_text("utf-8"))


# from scratch


def test_it_is_watched(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    assert [row["samples"] for row in rows if "kept-back/loss" in row] == [0, 16, 32, 48]
    assert len(rows[0]["kept-back/each"]) == len(rows[0]["kept-back/each trained"]) == 6
    bins = {f"kept-back/log-snr {name}" for name in ("-inf..-2", "-2..-0.7", "-0.7..0.7", "0.7..2", "2..inf")}
    assert bins <= rows[0].keys(), "levels are even, so that each bin has some"
    assert told_of(model)["kept_back"] == pytest.approx(rows[-1]["kept-back/loss"])
    assert unnoise("runs", model) == 0
    assert f", on pictures kept back {rows[-1]['kept-back/loss']:.4g}" in capsys.readouterr().out


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_bits_and_looks(photos: Path, server: Server, tmp_path: Path) -> None:
    """Killed twice between two looks; each look stands in the logs once."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    plan = {"watch_every": 16, "preview_every": 0}
    assert server.run(*small.command("folder", photos, whole, **plan)) == 0
    assert server.run(*small.command("folder", photos, out, **plan), at=("update", 15)) == -signal.SIGKILL
    assert server.run("train", "--resume", out, at=("batch", 2)) == -signal.SIGKILL
    assert server.run("train", "--resume", out) == 0
    same(out, whole)


def test_previews_show_the_captions_of_pictures_kept_back(model: Path) -> None:
    with Image.open(model / "previews" / "samples-00000048.png") as sheet:
        assert sheet.size == (3 * 132 + 4, 2 * 132 + 4), "six"


def test_the_model_draws(model: Path) -> None:
    engine = load_engine(model)
    assert engine.generate("red square", steps=2)[0].size == (128, 128)
    assert words(model) == {"red", "green", "blue", "square", "bar", "post", "a", "that", "is"}


def test_the_dial_makes_networks_larger() -> None:
    parameters = {}
    for size in SCALES:
        network = fresh(size, None, None).network
        parameters[size] = sum(p.numel() for p in network.parameters())
    assert list(parameters) == ["tiny", "small", "medium", "large"]
    values = list(parameters.values())
    assert all(b > 2 * a for a, b in zip(values, values[1:], strict=False)), parameters
    theirs = read_record(default_model())["parts"]["denoiser"]
    assert from_json(UNetConfig, theirs["config"], "") == fresh("medium", None, default_model()).network.config


def test_without_captions_it_takes_no_prompt(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small.picture_set(tmp_path / "pictures", captions=False)
    (tmp_path / "encoders").symlink_to(world / "encoders")
    out = tmp_path / "run"
    assert unnoise(*small.command("folder", tmp_path, out, preview_every=48)) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert notes == [
        "note: no picture has a caption: the model takes no prompt, and draws with an empty one",
        "note: no picture is kept back, so that nothing tells whether it learns or copies; see --keep-back",
    ]
    record = read_record(out / "model")
    assert record["parts"]["denoiser"]["config"]["text_width"] == 0
    assert record["defaults"]["cfg_scale"] == 1.0
    engine = load_engine(out)
    plain, prompted = (engine.generate(prompt, steps=2, seed=3)[0].tobytes() for prompt in ("", "red square"))
    assert plain == prompted, "what is said to it makes no difference"


def test_no_words_are_learnt_of_pictures_without_captions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = small.picture_set(tmp_path / "pictures", captions=False)
    assert main(["train", "emoji-text", "--data", str(data), "--run.out", str(tmp_path / "run")]) == 1
    assert "have no captions to learn from; write some" in capsys.readouterr().err


# trained further


def test_trained_further_it_begins_where_the_model_ended(model: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "more"
    assert main(further(model, photos, out)) == 0
    before, after = (read_record(each / "model") for each in (model, out))
    for record in (before, after):
        for entry in record["parts"].values():
            entry.pop("shards")
    assert after["parts"] == before["parts"]
    assert [each["recipe"] for each in after["trained"]["denoiser"]] == ["folder", "folder"]
    assert after["defaults"] == before["defaults"]
    parts, _ = load_model(model / "model", ["autoencoder"])
    own, _ = load_model(out / "model", ["autoencoder"])
    assert all(
        torch.equal(a, b)
        for a, b in zip(parts["autoencoder"].parameters(), own["autoencoder"].parameters(), strict=True)
    )


def test_what_a_model_was_taught_is_not_forgotten(
    model: Path, world: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words that are new to it are told before the training; both kinds are known to the new model."""
    new = tmp_path / "new"
    new.mkdir()
    (new / "encoders").symlink_to(photos / "encoders")
    rows = open_set(photos / "pictures")
    made = [
        Row(rows.ids[i], rows._encoded[i].as_py(), str(i), [f"crayon {rows.captions[i][0]}"], {}, str(i), i)
        for i in range(9)
    ]
    write_set(new / "pictures", made, {})
    args = further(model, new, tmp_path / "run", "--run.minutes", 0)
    assert main(args) == 130
    told = capsys.readouterr().err.splitlines()[0]
    assert told == (
        "note: words that the model has never been taught, and in how many pictures they stand: crayon (9); "
        "it learns them from these alone"
    )
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert "never been taught" not in capsys.readouterr().err, "it has begun"
    assert words(tmp_path / "run") == words(model) | {"crayon"}


def test_strange_words_are_counted_by_pictures() -> None:
    known = read_vocabulary(vocabulary(["a red square"]))
    (line,) = strange_to(known, [["a red post", "post post"], ["a post in fog"], ["a red square"]])
    assert "post (2), fog (1), in (1); it" in line
    assert strange_to(known, [["a red square", ""]]) == []
    assert strange_to(None, [["what nobody knows"]]) == []
    (line,) = strange_to(known, [[f"word{n}" for n in range(40)]])
    assert line.count("(1)") == 12
    assert "and 28 more" in line
    (line,) = strange_to(known, [["\u82f9" * 2000]])
    assert f"{chr(0x82F9) * 24}... (1); it" in line


MISTAKES: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "a size beside a model": (lambda a: [*a, "--size", "large"], "a model that is trained further keeps its size"),
    "no such size": (lambda a: [*a, "--size", "huge"], "--size cannot be 'huge'; one of: own, tiny, small, medium"),
    "no such model": (lambda a: [*a, "--init", "nowhere"], "no model at nowhere"),
    "half a model": (lambda a: [*a, "--init", "ENCODERS"], "the model at ENCODERS has no denoiser"),
    "another autoencoder": (
        lambda a: [*a, "--autoencoder", "ENCODERS"],
        "--autoencoder makes other latents than the denoiser of --init knows",
    ),
    "no set": (lambda a: [*a, "--data", "nowhere"], "no picture set at nowhere"),
    "seldom": (
        lambda a: [*a, "--train.watch-every", "-1"],
        "watch_every -1 is out of range; choose a whole number",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told_in_one_line(
    case: str, model: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change, said = MISTAKES[case]
    args = [
        word.replace("ENCODERS", str(photos / "encoders")) for word in change(further(model, photos, tmp_path / "run"))
    ]
    assert main(args) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"unnoise: {said.replace('ENCODERS', str(photos / 'encoders'))}"), line
    assert not (tmp_path / "run").exists(), "nothing is left"


def test_pictures_of_another_size_are_refused(
    model: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        Image.effect_noise((90, 80), 60).convert("RGB").save(tmp_path / f"{number}.png")
    assert unnoise("data", "folder", tmp_path, "--size", 64, "--out", tmp_path.parent / "small") == 0
    capfd.readouterr()
    of_small = ["--data", str(tmp_path.parent / "small")]
    fresh = ["train", "emoji-flow", "--run.out", str(tmp_path / "fresh")]
    for typed in (further(model, photos, tmp_path / "run"), fresh, ["measure", str(model)]):
        assert main([*typed, *of_small]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert "are 64 x 64, models draw 128 x 128; import them with `unnoise data folder` and --size 128" in line


# what any training of a denoiser gets


@pytest.mark.parametrize("recipe", ["emoji-flow", "emoji-dit", "emoji-pixels", "emoji-ddpm", "folder"])
@pytest.mark.parametrize("fixed", [False, True])
def test_every_denoiser_is_watched_where_pictures_are_kept_back(
    recipe: str, fixed: bool, photos: Path, world: Path
) -> None:
    training = small.build(recipe, photos, *(["--text-rate", "0"] if fixed else []))
    assert training.kept_back
    assert training.copied
    objective: Any = training.kept_back.objective
    assert objective.drop == 0
    assert isinstance(objective.times, EvenLevels)
    theirs, ours = ({id(p) for p in each.parameters()} for each in (training.objective, objective))
    assert theirs == ours, "the very weights"
    assert not isinstance(training.objective.times, EvenLevels), "and nothing else of the training's"  # type: ignore[attr-defined]
    without = small.build(recipe, world)
    assert without.kept_back is None
    assert without.copied is None


def test_captions_of_other_pictures_are_kept_apart(photos: Path) -> None:
    """As many pictures, but others: encoded captions must not be taken for theirs."""
    pictures = open_set(photos / "pictures")
    parts, _ = load_model(photos / "encoders", ["text"])
    found = [encode_captions(parts["text"], pictures, items, small.words()).tokens for items in ([0], [1], [0])]
    assert found[0] is not None
    assert torch.equal(found[0], found[2])  # type: ignore[arg-type]
    assert found[0].shape != found[1].shape or not torch.equal(found[0], found[1])  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize("name", index("paths"))
def test_levels_are_even(name: str) -> None:
    """In log-SNR, on every path, as far as it reaches."""
    path = find("paths", name)()
    u = torch.linspace(0, 1, 33, dtype=torch.float64)
    t = EvenLevels().times(u, path)
    assert ((t >= path.t_min) & (t <= 1)).all()
    wanted, reached = -4 + 8 * u, torch.as_tensor(path.at(t).log_snr)
    ends = [
        float(torch.as_tensor(path.at(torch.tensor(end, dtype=torch.float64)).log_snr)) for end in (1.0, path.t_min)
    ]
    inside = (wanted > ends[0]) & (wanted < ends[1])
    assert inside.sum() > 20
    assert torch.allclose(reached[inside], wanted[inside], atol=0.02)


def test_some_of_many_are_spread() -> None:
    assert spread(range(100), 4) == [0, 25, 50, 75]
    assert spread([3, 5], 4) == [3, 5]


def test_large_pictures_are_encoded_in_small_groups() -> None:
    assert [at_once(side) for side in (64, 128, 256, 512, 2048)] == [128, 32, 8, 2, 1]


# copies


def likenesses(photos: Path) -> tuple[Callable[[Tensor], Figure], Tensor, Tensor]:
    """(the figure, training pictures, pictures kept back) of the small set, with a perfect autoencoder."""
    pictures = open_set(photos / "pictures")
    items, kept = pictures.select("denoiser"), pictures.held_out("tier1", "validation")

    class Perfect(KLAutoencoder):
        def encode(self, x: Tensor) -> Any:
            return type("P", (), {"mean": x})

        def decode(self, z: Tensor) -> Tensor:
            return z

    figure = copies(pictures, kept, items, Perfect(tiny.KL))
    assert figure
    return figure, pictures.pictures(items), pictures.pictures(kept)


def test_a_copyist_is_found_out(photos: Path) -> None:
    figure, training, kept = likenesses(photos)
    found = figure(training[:6])
    assert found.low > 0.5
    assert found.value == 1
    assert figure(torch.cat([training, kept])) == figure(kept), "what a preview shows before them does not count"
    assert figure(kept).value == 0.5, "the kept ones themselves"


def test_a_blur_is_no_copy(photos: Path) -> None:
    """Plain distance takes what is blurred for a copy, since it is near to all: the control."""
    noise = torch.Generator().manual_seed(0)
    coarse = torch.rand(96, 3, 8, 8, generator=noise)
    pictures = (F.interpolate(coarse, 64, mode="bilinear") * 255).to(torch.uint8)
    training, kept, others = pictures[:64], pictures[64:80], pictures[80:]
    blurred = F.adaptive_avg_pool2d(others.float(), 2)
    drawn = F.interpolate(blurred, 64, mode="bilinear").to(torch.uint8)
    far = thumbnails(training)
    assert copied(nearest(drawn, training), nearest(kept, training)).value == 1
    assert copied(singled_out(drawn, far), singled_out(kept, far)).value < 0.5
    assert copied(singled_out(training[:16], far), singled_out(kept, far)).value == 1
    assert singled_out(training[:3], far).tolist() == [0, 0, 0]


def test_too_few_are_not_compared(world: Path, tmp_path: Path) -> None:
    small.picture_set(tmp_path / "pictures", kept=4)
    pictures = open_set(tmp_path / "pictures")
    assert copies(pictures, pictures.held_out("tier1", "validation"), [0, 1], KLAutoencoder(tiny.KL)) is None


def test_a_memoriser_is_told(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The line of the preview, for a model that draws its training pictures and for one that does not."""
    figure, training, kept = likenesses(photos)
    for number, (drawn, copier) in enumerate(((training[:6], True), (kept, False))):
        shown = replace(toy(preview_every=48), preview=lambda parts, drawn=drawn: drawn, copied=figure)
        run(shown, tmp_path / str(number), say_every=1e9)
        said = [line for line in capfd.readouterr().err.splitlines() if "single out a training picture" in line]
        assert len(said) == 1
        assert said[0].endswith("it copies; stop earlier, or add pictures") == copier
