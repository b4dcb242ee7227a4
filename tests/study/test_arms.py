"""The study of trainings on models whose figures are known, trained by nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study import known
from study.judged import write_shapes
from tiny import tokenizer
from unnoise.core.denoiser import Denoiser
from unnoise.core.estimate import Estimate
from unnoise.core.registry import find as registered
from unnoise.data.store import PictureSet, open_set
from unnoise.data.write import write_set
from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.engine.engine import Engine
from unnoise.engine.model import Model
from unnoise.errors import UnnoiseError
from unnoise.networks.unet import UNet, UNetConfig
from unnoise.paths.flow import Flow
from unnoise.predictions.data import Data
from unnoise.study.distances import Figure
from unnoise.study.lab import Lab, Trial, TrialPlan
from unnoise.study.lessons import arms
from unnoise.study.page import Lesson, write

FAULTS = {"baseline": 0.02, "pixels": 0.04, "transformer": 0.01, "frozen text": 0.02, "noise": 0.03}
DEAF = "frozen text"


class Faulty(Denoiser):
    """Its noise is too large by a part of itself, so that the squared error is that part squared."""

    fault = 0.0

    def leave(self, *args: Any, **more: Any) -> Estimate:
        right = super().leave(*args, **more)
        return Estimate(right.x0, right.eps * (1 + self.fault))


class OtherSpace(known.Cells):
    name = "other"


def model(pictures: PictureSet, each: TrialPlan) -> Any:
    """The model of an arm: with each seed a ten-thousandth more wrong."""
    engine = known.engine(pictures, deaf=each.name == DEAF)
    own, exact = engine.model, engine.model.denoiser
    faulty = Faulty(exact.network, exact.path, exact.prediction)
    faulty.fault = FAULTS[each.name] + each.seed / 10_000
    parts = {"denoiser": faulty, "autoencoder": OtherSpace() if each.name == "pixels" else own.autoencoder}
    return Engine(Model(own.parts | parts, {"text": own.tower.tokenizer}, own.record))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return open_set(write_shapes(tmp_path_factory.mktemp("sets") / "shapes"))


@pytest.fixture(scope="module")
def asked() -> list[TrialPlan]:
    return []


@pytest.fixture(scope="module")
def lesson(shapes: PictureSet, asked: list[TrialPlan], tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    def train(wanted: Sequence[TrialPlan]) -> Iterator[Trial]:
        asked.extend(wanted)
        for each in wanted:
            yield Trial(model(shapes, each), f"{each.name} {each.seed}", 640 * (2 if each.name == "noise" else 1), 10.0)

    folder = tmp_path_factory.mktemp("memory")
    lab: Lab = known.lab(known.engine(shapes), shapes, folder, seeds=3, steps=10, train=train)
    return arms.study(lab)


def column(lesson: Lesson, table: int, name: str) -> dict[Any, Any]:
    found = lesson.tables[table]
    place = list(found.columns).index(name)
    return {row[0]: row[place] for row in found.rows}


def test_every_arm_is_trained_with_every_seed(lesson: Lesson, asked: list[TrialPlan]) -> None:
    assert [(each.name, each.seed) for each in asked] == [(name, seed) for seed in range(3) for name in arms.ARMS]
    assert set(arms.ARMS) == set(FAULTS)
    baseline, *others = arms.ARMS.values()
    assert all(other != baseline for other in others)


def pairs(options: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(options[::2], options[1::2], strict=True)


def test_arms_differ_from_the_baseline_in_one_thing(asked: list[TrialPlan]) -> None:
    """In the recipe or in one option: what is not said is what both recipes take by default."""
    recipe, options = arms.ARMS[arms.BASELINE]
    for name, (its, own) in arms.ARMS.items():
        changed = set(pairs(own)) - set(pairs(options))
        assert (its != recipe) + len(changed) == (name != arms.BASELINE), name


def test_what_was_spent_and_reached(lesson: Lesson) -> None:
    assert column(lesson, 0, "samples") == {name: 1280 if name == "noise" else 640 for name in FAULTS}
    speed = column(lesson, 0, "samples/s")
    assert speed["noise"] == Figure(128.0, 128.0, 128.0, 3)
    own, less = column(lesson, 0, "own caption first"), column(lesson, 0, "less")
    assert own["baseline"].value > 0.9
    assert own[DEAF].value < 0.5, "a model that hears no prompt is at chance"
    assert less[DEAF].value == pytest.approx(own[DEAF].value - own["baseline"].value)
    assert less["baseline"] is None
    assert any(line.startswith(f"{DEAF}: ") and ", of one sign in its 3 seeds" in line for line in lesson.sentences)
    assert any(line.startswith("noise: ") and ", not of one sign in" in line for line in lesson.sentences), (
        "no difference"
    )
    far = column(lesson, 0, "KD-local")
    assert far["baseline"].value == pytest.approx(0, abs=1e-6), "the very pictures"


def test_one_call_of_the_network(lesson: Lesson) -> None:
    """Where the prompt tells one picture, one call draws it; who hears none draws the mean of all, which is a blur."""
    fine, own = column(lesson, 1, "fineness, one call"), column(lesson, 1, "own first, one call")
    assert fine["baseline"].value == pytest.approx(1, abs=0.01)
    assert fine[DEAF].value < 0.7
    assert (own["baseline"].value, own[DEAF].value < 0.5) == (1.0, True)
    assert column(lesson, 1, "fineness, all steps")["baseline"].value == pytest.approx(1, abs=0.01)


def test_errors_are_those_built_in_and_spaces_stay_apart(lesson: Lesson) -> None:
    tables = lesson.tables[3:]
    assert [list(table.columns) for table in tables] == [
        ["log-SNR", *(f"error, {name}" for name in FAULTS if name != "pixels")],
        ["log-SNR", "error, pixels"],
    ]
    assert [row[0] for row in tables[0].rows] == [-4.5 + place for place in range(10)]
    for place, name in enumerate(("baseline", "transformer"), 1):
        for row in tables[0].rows:
            figure: Any = row[place]
            mean = sum((FAULTS[name] + seed / 10_000) ** 2 for seed in range(3)) / 3
            assert figure.value == pytest.approx(mean, rel=0.1), "its part of the noise, squared"
            assert figure.low < figure.value < figure.high
    ratios = {series.name: [10**y.value for _, y in series.points] for series in lesson.charts[0].series}  # type: ignore[union-attr]
    assert set(ratios) == {name for name in FAULTS if name != "pixels"}, "errors of two spaces are not divided"
    assert ratios["baseline"] == [1.0] * 10
    assert ratios["noise"] == pytest.approx([2.25] * 10, rel=0.02)
    assert max(ratios[DEAF]) > 1.3, "without the prompt there is more to err about"


def test_the_cost_of_each_space(lesson: Lesson) -> None:
    assert column(lesson, 2, "state")["pixels"] == "3 x 16 x 16"
    assert set(column(lesson, 2, "bytes").values()) == {4 * 3 * 16 * 16}
    pixels, latents = cost_in("folded"), cost_in("kl")
    assert (pixels["bytes"], latents["bytes"]) == (4 * 192 * 16 * 16, 4 * 4 * 16 * 16)
    assert (pixels["state"], latents["state"]) == ("192 x 16 x 16", "4 x 16 x 16")
    assert pixels["GFLOP to pixels"] == 0, "to unfold is no arithmetic"
    assert latents["GFLOP to pixels"] == pytest.approx(4.22, abs=0.01), "as docs/networks.md has it"
    edges = 2 * 188 * 128 * 3 * 3  # weights of the first and the last convolution, for as many channels more
    assert pixels["GFLOP a call"] - latents["GFLOP a call"] == pytest.approx(2 * edges * 16 * 16 / 1e9)
    assert pixels["weights"] - latents["weights"] == edges + 188


def cost_in(space: str) -> dict[str, Any]:
    """Of the default U-Net in a space."""
    words = tokenizer()
    text = CLIPText(CLIPTextConfig(words.vocabulary, words.length, width=256, depth=1, heads=2, end=words.end))
    autoencoder = registered("autoencoders", space)()
    denoiser = Denoiser(UNet(UNetConfig(channels_in=autoencoder.space.channels)), Flow(), Data()).eval()
    parts = {"denoiser": denoiser, "autoencoder": autoencoder, "text": text.eval()}
    return arms.cost(Model(parts, {"text": words}), "red apple", 128)


def test_it_is_a_page(lesson: Lesson, tmp_path: Path) -> None:
    files = write(tmp_path, "arms", lesson, {"command": "`unnoise study arms`"})
    assert {file.name for file in files} == {"arms.md", "arms.json", "arms.png", *(f"arms-{k}.svg" for k in (1, 2, 3))}
    page = files[0].read_text("utf-8")
    assert "It does not compare spaces" in page
    assert "spacing karras(sigma_max=80)" in lesson.settings
    assert lesson.sheet.height > 10 * 80


def test_what_it_cannot_do_without(shapes: PictureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = known.lab(known.engine(shapes), shapes, tmp_path)
    with pytest.raises(UnnoiseError, match="its lab cannot"):
        arms.study(lab)
    write_set(tmp_path / "empty", [], {})

    def train(wanted: Sequence[TrialPlan]) -> Iterator[Trial]:
        raise AssertionError("it is told before anything is trained")

    with pytest.raises(UnnoiseError, match="has no held-out pictures"):
        arms.held_out_items(replace(lab, pictures=open_set(tmp_path / "empty")))
    monkeypatch.setattr(PictureSet, "held_out", lambda self, tier, part: [])
    with pytest.raises(UnnoiseError, match="has no held-out pictures"):
        arms.study(replace(lab, train=train))
