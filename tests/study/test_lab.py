"""What studies stand on: the memory on disk, curves, tables and sheets, spectra, guidances that change on the way."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from study import known
from study.judged import write_shapes
from unnoise.core.evaluate import batched
from unnoise.core.guidance import bind
from unnoise.core.level import NoiseLevel
from unnoise.data.store import PictureSet, open_set
from unnoise.guidances.cfg import CFG
from unnoise.guidances.plain import Plain
from unnoise.study import lab as laboratory
from unnoise.study.chart import Chart, Series, svg, ticks
from unnoise.study.distances import Figure, kernel_of
from unnoise.study.lab import Lab
from unnoise.study.page import Lesson, Table, as_good, as_near, cheapest, grid, half, record, stacked, text, write
from unnoise.study.spectrum import EDGES, compared, power
from unnoise.study.switched import Instead, Switched


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return open_set(write_shapes(tmp_path_factory.mktemp("sets") / "shapes"))


# the memory


class Stop(Exception):
    pass


def test_a_study_that_stops_goes_on(shapes: PictureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unnoise.study.lab.BATCH", 5)
    model = known.engine(shapes)
    lab = known.lab(model, shapes, tmp_path)
    draw, begun = model.pixels, []

    def failing(requests: Sequence[Any]) -> Tensor:
        begun.append(len(requests))
        if len(begun) == 3:
            raise Stop
        return draw(requests)

    monkeypatch.setattr(model, "pixels", failing)
    with pytest.raises(Stop):
        lab.draw()
    whole = lab.draw()
    assert begun == [5, 5, 2, 2], "what was drawn is not drawn again"
    assert torch.equal(lab.draw().pixels, whole.pixels)
    assert torch.equal(lab.draw().seconds, whole.seconds), "and its seconds are the first drawing's"
    assert len(begun) == 4
    assert lab.right(whole.pixels).mean() == 1


def test_who_watches_is_told_what_is_drawn(shapes: PictureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    def watch(what: str, batches: Sequence[slice]) -> Iterator[slice]:
        seen.append((what, len(batches)))
        yield from batches

    monkeypatch.setattr(laboratory, "BATCH", 5)
    lab = known.lab(known.engine(shapes), shapes, tmp_path, watch=watch)
    assert len(lab.draw(steps=2).pixels) == 12
    assert seen == [("batches of euler, 2 steps, scale 1", 3)]


def test_what_is_remembered_is_told_apart(shapes: PictureSet, tmp_path: Path) -> None:
    """Prompts, seeds, settings, notes, weights and computer: each change draws anew, and nothing else does."""
    model = known.engine(shapes)

    def files(lab: Lab, **asked: Any) -> int:
        lab.draw(**asked)
        return len(list(tmp_path.glob("*.safetensors")))

    lab = known.lab(model, shapes, tmp_path)
    assert files(lab) == 1
    assert files(lab, steps=8) == 1, "the model's own number of steps, said aloud"
    assert files(lab, steps=4) == 2
    assert files(lab, cfg_scale=2.0) == 3
    assert files(lab, seeds=lab.turns(1)) == 4
    assert files(lab, prompts=lab.captions[::-1]) == 5
    assert files(lab, note="other") == 6
    assert files(known.lab(model, shapes, tmp_path, weights="others")) == 7
    assert files(known.lab(model, shapes, tmp_path, computer={"threads": 1})) == 8
    assert not lab.judged
    assert lab.turns(1) == list(range(12, 24))


def test_the_verdict_is_the_judges_own(shapes: PictureSet, tmp_path: Path) -> None:
    assert known.lab(known.engine(shapes), shapes, tmp_path).verdict().startswith("passed its exam: 100.0%")
    blind = known.lab(known.engine(shapes), shapes, tmp_path, colour=False)
    assert blind.verdict().startswith("FAILED its exam: 0.0%")


# pages


def figure(value: float) -> Figure:
    return Figure(value, value - 0.1, value + 0.2, 9)


def test_a_lesson_becomes_files(tmp_path: Path) -> None:
    table = Table(["a", "b"], [[1, figure(0.5)], ["x", None], [2.0, math.nan]], "what a and b are")
    chart = Chart("A < B", "x", "y", [Series("s", [(1, figure(0.5)), (10, 0.25)])], log=True)
    lesson = Lesson(
        "Title", ["It is so."], [table], [chart], grid([torch.zeros(2, 3, 8, 8, dtype=torch.uint8)], ["one"]), "the key"
    )
    files = write(tmp_path, "some", lesson, {"model": "m"})
    assert sorted(file.name for file in files) == ["some-1.svg", "some-key.md", "some.json", "some.md", "some.png"]
    page = (tmp_path / "some.md").read_text("utf-8")
    assert "| 1 | 0.5 [0.4, 0.7] |\n| x | - |\n| 2 | - |\n\nwhat a and b are" in page
    assert "- model: m" in page
    assert "the key" not in page
    assert all((tmp_path / name).is_file() for name in re.findall(r"\]\(([^)]+)\)", page))
    kept = json.loads((tmp_path / "some.json").read_text("utf-8"))
    assert kept["tables"][0]["rows"][0][1] == {"value": 0.5, "low": 0.4, "high": 0.7, "count": 9}
    assert record(lesson, {})["found"] == ["It is so."]
    assert text(table).startswith("| a | b |\n|---|---|\n")


def test_a_sheet_has_its_pictures_where_they_belong() -> None:
    red, blue = (torch.zeros(1, 3, 8, 8, dtype=torch.uint8) for _ in range(2))
    red[:, 0], blue[:, 2] = 255, 255
    sheet = grid([torch.cat([red, blue]), torch.cat([blue, red])], ["a", "a caption that is far too long for it"])
    assert [sheet.getpixel(place) for place in ((40, 40), (130, 40), (40, 130), (130, 130))] == [
        (255, 0, 0), (0, 0, 255), (0, 0, 255), (255, 0, 0)
    ]  # fmt: skip
    assert sheet.width < 2 * 90
    both = stacked([sheet, Image.new("RGB", (5, 7), "black")])
    assert both.size == (sheet.width, sheet.height + 7)
    assert both.getpixel((2, sheet.height + 3)) == (0, 0, 0)


def test_curves_go_through_their_points() -> None:
    """The pixel of each point is worked out from the axes' own marks."""
    drawn = svg(Chart("t", "x", "y", [Series("s", [(1, 0.0), (10, 1.0), (100, 0.5)])], log=True))
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    (x1, y0), (x10, y1), (x100, yh) = dots
    assert x10 == pytest.approx((x1 + x100) / 2, abs=0.1), "decades are as wide"
    assert yh == pytest.approx((y0 + y1) / 2, abs=0.1)
    assert y1 < y0, "up is more"
    marks = re.findall(r'<text x="([\d.]+)" y="\d+" text-anchor="middle">(\d+)</text>', drawn)
    assert [(pytest.approx(x, abs=0.1), name) for (x, _), name in zip(dots, ("1", "10", "100"), strict=True)] == [
        (float(x), name) for x, name in marks
    ]
    bars = svg(Chart("t", "x", "y", [Series("<s>", [(1, figure(0.5)), (2, figure(0.6))])]))
    assert "&lt;s&gt;" in bars
    with pytest.raises(ValueError, match="no points"):
        svg(Chart("t", "x", "y", [Series("s", [(0, 1.0)])], log=True))
    assert svg(Chart("t", "x", "y", [Series("s", [(1, 0.5)])])).count("<circle") == 1, "one point is a chart too"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.3, 0.31), (0, 250), (1e-4, 7e-4), (3, 3.2)])
def test_marks_are_round_and_few(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 11
    assert all(low - 1e-9 <= each <= high + 1e-9 for each in found)
    step = found[1] - found[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)


# which row is good enough


def test_the_cheapest_that_is_not_worse() -> None:
    generator = torch.Generator().manual_seed(0)
    wins = (torch.rand(4, 400, generator=generator) < torch.tensor([[0.2], [0.6], [0.9], [0.9]])).double()
    assert cheapest(wins) == 2
    assert cheapest(wins[:, :2].clone().fill_(1.0)) == 0, "where all are alike the first will do"
    assert cheapest(wins.flip(0)) in (0, 1)
    shared = torch.rand(1, 400, generator=generator).double()
    assert cheapest(torch.cat([shared - 0.01, shared])) == 1, "a small loss in each prompt is seen: rows are paired"
    assert as_good(wins[[2, 0, 2]]) == [True, False, True], "a row between good ones may be bad"


def test_the_sets_that_are_not_farther() -> None:
    """A set that is off in one direction is told from two that scatter alike, where their own intervals overlap."""
    generator = torch.Generator().manual_seed(0)
    real, noise = torch.randn(2, 200, 8, generator=generator).double()
    near, off = real + 0.3 * noise, real + 0.3 * noise + 0.06
    again = near + 0.01 * torch.randn(200, 8, generator=generator).double()
    assert as_near([off, near, again], real) == [False, True, True]
    assert kernel_of(off, real).low < kernel_of(near, real).high, "the control: unpaired they would not be told apart"
    assert as_near([off, off.clone()], real) == [True, True]


def test_where_a_curve_crosses_one_half() -> None:
    assert half([0, 1, 2], [1.0, 0.75, 0.25]) == pytest.approx(1.5)
    assert half([0, 4], [0.0, 1.0]) == pytest.approx(2.0)
    assert math.isnan(half([0, 1], [0.9, 0.8]))


# spectra


def wave(cycles: float, angle: float = 0.0, amplitude: float = 1.0, size: int = 64) -> Tensor:
    place = 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
    down, across = torch.meshgrid(place, place, indexing="ij")
    return amplitude * torch.cos(cycles * (math.cos(angle) * across + math.sin(angle) * down) + 0.3)


@pytest.mark.parametrize("cycles", [1, 2, 4, 8, 16, 30])
def test_a_wave_lies_in_its_own_band(cycles: int) -> None:
    for angle in (0.0, math.pi / 2):
        found = power(wave(cycles, angle, 3.0)[None])[0]
        band = next(k for k, high in enumerate(EDGES[1:]) if cycles < high)
        assert float(found[band]) == pytest.approx(3.0**2 / 2)
        assert float(found.sum() - found[band]) == pytest.approx(0, abs=1e-9)


def test_power_is_the_variance() -> None:
    """Parseval, on noise of 33 x 33 whose corners lie within the last band too."""
    x = torch.randn(2, 33, 33, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(power(x).sum(1), x.var((1, 2), unbiased=False))
    assert torch.allclose(power(x + 5.0), power(x)), "the mean is no band's"
    wide = torch.randn(1, 128, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rings = torch.tensor([math.pi * (b**2 - a**2) for a, b in zip(EDGES[:-1], EDGES[1:], strict=True)])
    assert torch.allclose(power(wide)[0][2:] * 128**2, rings[2:].double(), rtol=0.15), "white noise is even"


def test_a_blur_takes_what_its_kernel_says() -> None:
    """A mean over 4 pixels in a row scales a wave by the Dirichlet kernel; band by band, and nothing else moves."""
    for cycles in (2, 8, 16):
        sharp = wave(cycles)
        blurred = sum(sharp.roll(k, 1) for k in range(4)) / 4
        x = math.pi * cycles / 64
        factor = (math.sin(4 * x) / (4 * math.sin(x))) ** 2
        ratio = power(blurred[None]).sum() / power(sharp[None]).sum()
        assert float(ratio) == pytest.approx(factor)


def test_comparison_tells_blur_from_another_picture() -> None:
    noise = torch.randint(0, 256, (8, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    ratio, off = compared(noise, noise)
    assert torch.allclose(ratio, torch.ones(6, dtype=torch.float64))
    assert off.abs().max() == 0
    other_ratio, other_off = compared(noise.flip(0), noise)
    assert torch.allclose(other_ratio, torch.ones(6, dtype=torch.float64)), "as sharp"
    assert torch.allclose(other_off[2:], torch.full((4,), 2.0, dtype=torch.float64), atol=0.4), "and nowhere near"
    blank = torch.full_like(noise, 127)
    assert torch.allclose(compared(blank, noise)[1], torch.ones(6, dtype=torch.float64))


# guidances that change on the way


def asked(shapes: PictureSet, guidance: Any, level: NoiseLevel) -> Tensor:
    """What a model that is exactly right says of one state under "red square", "green bar" lying ready."""
    model = known.engine(shapes)
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    conds = {"cond": model.model.encode(["red square"]), "uncond": model.model.encode([""])}
    return bind(guidance, batched(model.model.denoiser), conds)(x, level).x0


def test_switched_and_instead(shapes: PictureSet) -> None:
    other = known.engine(shapes).model.encode(["green bar"])
    before, at, below = NoiseLevel(0.2, 0.8), NoiseLevel(0.5, 0.5), NoiseLevel(0.8, 0.2)
    guidance = Switched(CFG(2.0), Instead(CFG(1.0), other), at)
    assert torch.equal(asked(shapes, guidance, before), asked(shapes, CFG(2.0), before))
    for level in (at, below):
        said = asked(shapes, guidance, level)
        assert torch.equal(said, asked(shapes, Instead(Plain(), other), level))
        assert not torch.allclose(said, asked(shapes, CFG(1.0), level))
    pure = NoiseLevel(0.0, 1.0)
    assert torch.equal(asked(shapes, Switched(CFG(2.0), Plain(), pure), pure), asked(shapes, Plain(), pure))


def test_one_guidance_does_not_see_what_another_remembers() -> None:
    class Counting(Plain):
        def combine(self, parts: Any, x: Any, here: Any, memory: Any) -> Any:
            return parts["cond"], (memory or 0) + 1

    early, late = Counting(), Counting()
    guidance, memory, seen = Switched(early, late, NoiseLevel(0.5, 0.5)), None, []
    for sigma in (0.9, 0.8, 0.4, 0.3):
        parts = {"cond": None}
        _, memory = guidance.combine(parts, torch.zeros(1), NoiseLevel(1 - sigma, sigma), memory)  # type: ignore[arg-type]
        seen.append(memory[1])
    assert seen == [1, 2, 1, 2]
