"""Published models trained further: through the real verb, resumed to the same bits, by the right loss, or refused."""

from __future__ import annotations

import inspect
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image
from torch import Tensor

import small_models as published
from training import small
from training.test_resume import same
from unnoise.cli.main import main, parse
from unnoise.cli.train import suited
from unnoise.core import registry
from unnoise.core.objective import Draws
from unnoise.data.store import open_set
from unnoise.data.verbs import folder as import_folder
from unnoise.engine.load import load_engine
from unnoise.networks.sd_unet import SDUNetConfig
from unnoise.recipes.folder import folder
from unnoise.recipes.published import PUBLISHED_TRAIN, needed
from unnoise.training import memory
from unnoise.weights import keys
from unnoise.weights.families.family import families
from unnoise.weights.opening import open_model
from unnoise.weights.parts import build
from unnoise.weights.record import read_record

SHORT = ("--train.batch", "4", "--train.checkpoint-every", "4", "--run.dtype", "float32")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``pictures`` of 128 pixels, six of them kept back, and two models of other tools."""
    folder = tmp_path_factory.mktemp("published")
    small.picture_set(folder / "pictures", kept=6)
    published.single_file(folder / "sd1.safetensors", "sd1", dtype=torch.float16)
    published.single_file(folder / "v.safetensors", "sd1", metadata={"modelspec.prediction_type": "v"})
    return folder


def command(place: Path, out: Path, *more: object, init: str = "sd1.safetensors") -> list[str]:
    words = ["train", "folder", "--data", place / "pictures", "--init", place / init, "--run.out", out, *SHORT, *more]
    return [str(word) for word in words]


def weights(model: Path) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor for name, part in load_engine(model).model.parts.items() for key, tensor in
        part.state_dict().items()
    }  # fmt: skip


@pytest.mark.slow
def test_it_trains_saves_goes_on_to_the_same_bits_and_draws(place: Path, tmp_path: Path) -> None:
    """Two steps at once, and in two halves; the U-Net moves, the rest stays as the file has it."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    plan = ("--train.samples", 8, "--train.keep", 2, "--train.watch-every", 0)
    assert main(command(place, whole, *plan)) == 0
    assert main(command(place, halves, *plan, "--run.minutes", 0)) == 130
    assert main(["train", "--resume", str(halves)]) == 0
    same(halves, whole)
    record = read_record(whole / "model")
    assert set(record["files"]) >= {"text.clip-l.tokenizer.json"}
    assert {name: entry["dtype"] for name, entry in record["parts"].items()} == dict.fromkeys(
        record["parts"], "float16"
    )
    assert record["parts"]["denoiser"]["path"] == "scaled-linear"
    assert record["parts"]["denoiser"]["prediction"] == "noise"
    assert (record["layout"]["tokens"], record["defaults"]["size"]) == ([["text.clip-l"]], [128, 128])
    before, after = weights(place / "sd1.safetensors"), weights(whole)
    assert before.keys() == after.keys()
    moved = {name.partition(".network.")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"denoiser"}
    (picture,) = load_engine(whole).generate("red square", steps=2)
    assert picture.size == (128, 128)
    # and further, from the folder that it made
    assert main(command(place, tmp_path / "more", "--train.samples", 4, init=str(whole))) == 0
    assert [each["recipe"] for each in read_record(tmp_path / "more" / "model")["trained"]["denoiser"]] == [
        "folder"
    ] * 2


@pytest.mark.slow
def test_a_set_of_256_pixels(place: Path, tmp_path: Path) -> None:
    for number in range(3):
        picture = torch.randint(0, 255, (300, 280, 3), generator=torch.Generator().manual_seed(number))
        Image.fromarray(picture.to(torch.uint8).numpy()).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("snow")
    import_folder(tmp_path, size=256, out=tmp_path.parent / "set256", keep_back=0)
    args = command(place, tmp_path / "run", "--train.samples", 4)
    args[args.index("--data") + 1] = str(tmp_path.parent / "set256")
    assert main(args) == 0
    record = read_record(tmp_path / "run" / "model")
    assert record["parts"]["denoiser"]["config"]["size"] == 32
    assert load_engine(tmp_path / "run").model.size == (256, 256)


@pytest.mark.parametrize(("init", "kind"), [("sd1.safetensors", "epsilon"), ("v.safetensors", "v_prediction")])
def test_the_loss_is_that_of_its_own_prediction(init: str, kind: str, place: Path) -> None:
    """Against diffusers' schedule on the same noise, steps and dropped prompts; the control takes the other target."""
    training = folder(place / "pictures", PUBLISHED_TRAIN, place / init, drop=0.5)
    objective: Any = training.objective
    draws = Draws(3, 7, 6, slice(0, 6))
    batch = training.data.batch(torch.arange(6), draws)  # type: ignore[arg-type,union-attr]
    with torch.no_grad():
        loss = objective.loss(batch, draws)
        path = objective.denoiser.path
        levels = torch.tensor([float(path.at(k / 1000).log_snr) for k in range(1, 1001)])
        steps = (loss.log_snr[:, None] - levels[None]).abs().argmin(1)
        assert len(set(steps.tolist())) == 6
        schedule = DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=kind
        )
        eps, x0 = draws.normal("eps", *batch["x0"].shape[1:]), batch["x0"]
        x = schedule.add_noise(x0, eps, steps)
        dropped = draws.uniform("drop") < 0.5
        assert 0 < int(dropped.sum()) < 6
        tokens = torch.where(dropped[:, None, None], batch["empty"].tokens, batch["condition"].tokens)
        cond = type(batch["condition"])(tokens=tokens)
        output, _ = objective.denoiser.network(x, steps.float(), cond)
        targets = {"epsilon": eps, "v_prediction": schedule.get_velocity(x0, eps, steps)}
        found = {name: float(((output - target) ** 2).mean()) for name, target in targets.items()}
    other = next(value for name, value in found.items() if name != kind)
    assert float(loss.total) == pytest.approx(found[kind], rel=1e-4)
    assert abs(float(loss.total) - other) > 0.01 * other


def test_prompts_and_pictures_are_encoded_by_its_own_parts(place: Path) -> None:
    model = load_engine(place / "sd1.safetensors").model
    training = folder(place / "pictures", PUBLISHED_TRAIN, place / "sd1.safetensors")
    feed: Any = training.data
    tokens = model.encode(["red square", ""]).tokens
    assert tokens is not None
    assert torch.allclose(feed.features.tokens[0], tokens[0], atol=1e-5)
    assert torch.allclose(feed.features.tokens[-1], tokens[1], atol=1e-5)
    assert feed.features.token_mask is None, "published networks attend to all"
    assert feed.mean.shape[1:] == (4, 16, 16)


def test_a_published_model_has_defaults_of_its_own(place: Path) -> None:
    """A low rate, AdamW, no averages; what is typed wins. The notes tell what it needs."""

    def typed(init: object, *more: str) -> Any:
        args = ["--data", str(place / "pictures"), "--init", str(init), *more]
        return parse(suited(folder, args), args, "unnoise train folder")

    training = typed(place / "sd1.safetensors", "--train.rate", "2e-5", "--train.batch", "4")
    assert training.settings == replace(PUBLISHED_TRAIN, rate=2e-5, batch=4)
    assert (training.settings.matrix_rate, training.settings.averages, training.settings.micro_batch) == (0, (), 1)
    assert training.notes[0].startswith("training Stable Diffusion 1 further at 128 x 128 needs about 1.")
    assert training.notes[1] == "the model was trained at 512 x 512; the new one will draw at 128 x 128"
    assert typed("none", "--size", "tiny").settings == inspect.signature(folder).parameters["train"].default
    equals = suited(folder, [f"--init={place / 'v.safetensors'}"])
    assert inspect.signature(equals).parameters["train"].default == PUBLISHED_TRAIN
    assert suited(folder, []) is suited(folder, ["--init", "default"]) is folder


# refused


def refused(args: list[str], capsys: Any) -> str:
    assert main(args) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("unnoise: ")
    return line.removeprefix("unnoise: ")


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "inpainting": (
        lambda path: published.single_file(path, "sd1", channels_in=9),
        "for inpainting, which reads a mask and a masked picture",
    ),
    "a denoiser alone": (
        lambda path: published.single_file(path, "sd1", only=("denoiser",), text_width=768),
        "has no autoencoder; name a model that has all its parts, or add them",
    ),
    "distilled": (
        lambda path: published.single_file(path, "sd1", guidance_width=32),
        "it would forget to draw in a few steps; name the model that it was distilled from",
    ),
    "no model": (lambda path: path.write_bytes(b"no model"), "is text (no model), not safetensors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_trained_is_refused_in_one_line(case: str, place: Path, tmp_path: Path, capsys: Any) -> None:
    make, message = REFUSED[case]
    make(tmp_path / "m.safetensors")
    assert message in refused(command(place, tmp_path / "run", init=str(tmp_path / "m.safetensors")), capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("family", ["sdxl", pytest.param("sdxl-refiner", marks=pytest.mark.slow)])
def test_xl_is_refused_with_the_figure(family: str, place: Path, tmp_path: Path, capsys: Any) -> None:
    """The figure is that of ``needed`` for the file's own shapes."""
    published.single_file(tmp_path / "m.safetensors", family)
    line = refused(command(place, tmp_path / "run", "--memory", 1000, init=str(tmp_path / "m.safetensors")), capsys)
    record = open_model(tmp_path / "m.safetensors").record
    modules = {name: build(name, entry) for name, entry in record["parts"].items()}
    pictures = open_set(place / "pictures")
    need = needed(modules, record, pictures, replace(PUBLISHED_TRAIN, batch=4))
    assert f"which is not trained further here: it would need about {need.peak / 1e9:.1f} GB of memory ({need})" in line


def test_options_that_do_not_go_with_it(place: Path, tmp_path: Path, capsys: Any) -> None:
    for words, message in (
        (("--size", "large"), "a published model keeps its size and its parts"),
        (("--text", place), "a published model keeps its size and its parts"),
        (("--memory", "0.5"), "needs about 1.0 GB of memory (program 1.0), and 0.5 GB are what it may take"),
    ):
        assert message in refused(command(place, tmp_path / "run", *words), capsys)
    own = [*command(place, tmp_path / "run", "--memory", 9), "--init", "none"]
    assert "--prediction and --memory are for published models" in refused(own, capsys)


def test_too_little_memory_is_told_before_anything_is_loaded(
    place: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of true size, of which only the header is there: whatever read its numbers would find zeros."""
    monkeypatch.setattr(memory, "free", lambda: 8_000_000_000)
    hollow(tmp_path / "sd1.safetensors", "sd1", {"denoiser": SDUNetConfig()})
    line = refused(command(place, tmp_path / "run", init=str(tmp_path / "sd1.safetensors")), capsys)
    assert "needs about " in line
    assert "weights 3.4, gradients 3.4, moments 6.9, fixed 0.8, " in line
    assert "and 8.0 GB are free; close other programs, or name with --memory" in line
    assert float(line.split("needs about ")[1].split()[0]) < 17


@pytest.mark.slow
def test_xl_of_true_size_needs_more_than_forty_gigabytes(place: Path, tmp_path: Path, capsys: Any) -> None:
    shape = SDUNetConfig(
        size=128, channels=(320, 640, 1280), depth=(0, 2, 10), middle=10, heads=(5, 10, 20), text_width=2048,
        added_width=2816, linear=True,
    )  # fmt: skip
    hollow(tmp_path / "xl.safetensors", "sdxl", {"denoiser": shape})
    line = refused(command(place, tmp_path / "run", init=str(tmp_path / "xl.safetensors")), capsys)
    assert "weights 10.3, gradients 10.3, moments 20.5, " in line, "of 2,567 million"
    assert 45 < float(line.split("would need about ")[1].split()[0]) < 50


def hollow(path: Path, family: str, shapes: dict[str, Any]) -> None:
    """A single file of true size whose numbers are a hole: a header, and nothing that was written behind it."""
    kind, header, at = families()[family], {}, 0
    towers = {"text.clip-l": (768, 12, 12), "text.clip-g": (1280, 32, 20)}
    for name, piece in kind.pieces.items():
        cls = registry.find(piece.kind, piece.name)
        config = shapes.get(name)
        if name in towers:
            width, depth, heads = towers[name]
            own = {"vocabulary": 49408, "length": 77, "width": width, "depth": depth, "heads": heads}
            extra = {"projection": 1280} if name == "text.clip-g" else {}
            config = cls.Config(**{**own, "hidden": 4 * width, "end": 49407, **piece.hints, **piece.settings, **extra})
        elif config is None:
            config = replace(cls.Config(), **piece.hints)
        prefix, layout = piece.prefixes[0]
        with torch.device("meta"):
            state = cls(config).state_dict()
        for theirs, tensor in keys.state_to_theirs(piece.names.table(config, layout), state).items():
            size = 2 * tensor.numel()
            header[prefix + theirs] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [at, at + size]}
            at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
