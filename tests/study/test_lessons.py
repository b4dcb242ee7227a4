"""Each study on a model that is exactly right, where what it must find is known; and on one that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch

from study import known
from study.judged import write_shapes
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import find as registered
from unnoise.data.store import PictureSet, open_set
from unnoise.engine.engine import Engine
from unnoise.engine.model import Model
from unnoise.errors import UnnoiseError
from unnoise.pictures import from_bytes, to_bytes
from unnoise.study.distances import Figure
from unnoise.study.lessons import early_late, find, guidance, hundred, one_jump, seeds, spectrum, steps, studies
from unnoise.study.page import Lesson
from unnoise.study.prompts import HUNDRED, choose, kinds, mixed
from unnoise.study.prompts import hundred as listed
from unnoise.study.spectrum import COARSE, FINE, compared, fineness


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return open_set(write_shapes(tmp_path_factory.mktemp("sets") / "shapes"))


def column(lesson: Lesson, name: str, table: int = 0) -> list[Any]:
    """The values of a column, figures by their value."""
    place = list(lesson.tables[table].columns).index(name)
    return [row[place].value if isinstance(row[place], Figure) else row[place] for row in lesson.tables[table].rows]


def test_the_list_of_studies() -> None:
    names = {"arms", "guidance", "steps", "early-late", "spectrum", "one-jump", "words", "seeds", "hundred"}
    assert set(studies()) == names
    assert all(about.endswith(".") for about in studies().values())
    assert find("one-jump") is one_jump.study
    with pytest.raises(UnnoiseError, match="one of: arms, early-late, guidance"):
        find("unknown")


# guidance and steps


def test_guidance_of_a_model_that_is_right(shapes: PictureSet, tmp_path: Path) -> None:
    lesson = guidance.study(known.lab(known.engine(shapes), shapes, tmp_path))
    rows = dict(zip(column(lesson, "scale"), lesson.tables[0].rows, strict=True))
    assert list(rows) == list(guidance.settings())
    own, colour, variety, far = ([row[k].value for row in rows.values()] for k in (1, 2, 3, 4))  # type: ignore[union-attr]
    assert own[0] < 0.5, "without the prompt it is chance"
    assert own[1] == own[2] == own[3] == 1
    assert colour[1] == pytest.approx(0, abs=1e-3), "the very pictures"
    assert variety[1] == pytest.approx(0, abs=1e-9), "a prompt has one picture"
    assert variety[0] > 0.1, "no prompt has twelve"
    assert far[1] == pytest.approx(0, abs=1e-9)
    assert "is not measurably worse" not in lesson.sentences[0]
    assert lesson.sentences[0].endswith("best one: 1.")
    assert len(lesson.charts) == 4


def test_a_judge_that_sees_no_colour_finds_nothing(shapes: PictureSet, tmp_path: Path) -> None:
    """The control: adherence is the judge's, and not assumed."""
    blind = known.lab(known.engine(shapes), shapes, tmp_path, colour=False)
    assert set(column(guidance.study(blind), "own caption first")) == {0.0}


def test_steps(shapes: PictureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SOLVERS", ("euler", "euler-a"))
    right = steps.study(known.lab(known.engine(shapes), shapes, tmp_path, steps=10))
    assert column(right, "steps") == [1, 2, 5, 10] * 2
    assert set(column(right, "own caption first")) == {1.0}, "one picture for a prompt is drawn in one step"
    assert column(right, "still to go") == [0.0] * 4 + [None] * 4, "none for a solver that draws noise"
    assert "euler: 1, " in right.sentences[0]
    assert min(column(right, "seconds")) > 0
    deaf = known.engine(shapes, cfg_scale=0.0)
    lesson = steps.study(known.lab(deaf, shapes, tmp_path, steps=10))
    mean = to_bytes(from_bytes(shapes.pictures()).mean(0))  # one step draws the mean of all there is
    lab = known.lab(deaf, shapes, tmp_path)
    last = lab.draw(steps=10, solver="euler").pixels
    assert column(lesson, "still to go")[0] == pytest.approx(steps.away(mean, last), abs=0.5)
    assert column(lesson, "KD-local")[0] > column(lesson, "KD-local")[3]


# early and late


def test_early_and_late(shapes: PictureSet, tmp_path: Path) -> None:
    """The last prediction is the picture: whoever speaks at the last step decides, and all before it nothing."""
    lesson = early_late.study(known.lab(known.engine(shapes), shapes, tmp_path))
    assert column(lesson, "k") == list(range(9))
    assert column(lesson, "follows A")[:8] == [0.0] * 8
    assert column(lesson, "follows A")[8] == 1.0
    assert column(lesson, "A first") == [0.0] * 8 + [1.0]
    assert set(column(lesson, "off: own first")) == {1.0}
    for waves in ("coarse", "fine"):
        assert column(lesson, waves) == [0.0] * 8 + [1.0]
    assert set(column(lesson, "coarse less fine")) == {0.0}
    assert (
        "held for 7.5 of 8 steps; their coarse waves are its own once it has held for 7.5, their "
        in lesson.sentences[0]
    )


def test_whose_waves_they_are() -> None:
    """A picture with the wide waves of one and the narrow ones of another."""
    across = torch.arange(64.0) * 2 * torch.pi / 64
    wide, narrow, other = (torch.sin(cycles * across).expand(1, 3, 64, 64) * 0.3 for cycles in (2, 12, 9))
    mixed, a, b = to_bytes(wide + narrow), to_bytes(wide + other), to_bytes(-wide + narrow)
    assert early_late.nearer(mixed, a, b, COARSE).tolist() == [1.0]
    assert early_late.nearer(mixed, a, b, FINE).tolist() == [0.0]
    assert early_late.nearer(mixed, a, a, FINE).tolist() == [0.5]
    assert "first prompt at none of 4 steps; their coarse waves are its own once" in early_late.halves_line(
        [nan, 1, 2], 4
    )


def test_what_guidance_is_switched_off_for(shapes: PictureSet, tmp_path: Path) -> None:
    """A model that hears no prompt unless guided to: the judge says when guidance went."""
    lab = known.lab(known.engine(shapes, cfg_scale=0.0), shapes, tmp_path)
    chosen = lab.engine.request("")
    levels = chosen.levels_of().levels(lab.engine.model.denoiser.path, 8, (3, 16, 16))
    first = lab.draw(steer=early_late.let_go(levels[0]), note="first")  # plain from the start: the prompt is heard
    last = lab.draw(steer=early_late.let_go(levels[-1]), note="last")  # scale 0 to the end: it is not
    assert lab.right(first.pixels).mean() == 1
    assert lab.right(last.pixels).mean() < 0.5


def test_follows() -> None:
    a, b = torch.eye(2, dtype=torch.float64)[:1], torch.eye(2, dtype=torch.float64)[1:]
    for look, answer in ((a, 1.0), (b, 0.0), ((a + b) / 2**0.5, 0.5)):
        assert early_late.follows(look, a, b).tolist() == [answer]


# spectrum and one jump


def test_spectrum_study(shapes: PictureSet, tmp_path: Path) -> None:
    right = spectrum.study(known.lab(known.engine(shapes), shapes, tmp_path))
    for table in (0, 1):
        for band in right.tables[table].columns[1:]:
            assert column(right, band, table) == pytest.approx([1.0 - table] * 8, abs=1e-6)
    model = known.engine(shapes, cfg_scale=0.0)
    lesson = spectrum.study(known.lab(model, shapes, tmp_path))
    lab = known.lab(model, shapes, tmp_path)
    mean = to_bytes(from_bytes(shapes.pictures()).mean(0))[None].expand(12, -1, -1, -1)
    ratio, off = compared(mean, lab.draw().pixels)
    assert list(lesson.tables[0].rows[0][1:]) == pytest.approx(ratio.tolist(), rel=0.02)  # type: ignore[arg-type]
    assert list(lesson.tables[1].rows[0][1:]) == pytest.approx(off.tolist(), rel=0.02)  # type: ignore[arg-type]


def test_one_jump(shapes: PictureSet, tmp_path: Path) -> None:
    lesson = one_jump.study(known.lab(known.engine(shapes), shapes, tmp_path))
    count = len(one_jump.TIMES)
    assert column(lesson, "error")[:count] == pytest.approx([0] * count, abs=1e-9), "the prompt names one picture"
    assert column(lesson, "fineness")[:count] == pytest.approx([1] * count, abs=1e-3)
    assert column(lesson, "fineness")[-2:] == pytest.approx([1, 1], abs=1e-3)
    blind, blur = column(lesson, "error, no prompt"), column(lesson, "fineness, no prompt")
    assert blind[0] == pytest.approx(1, abs=1e-6), "the mean of the pictures"
    mean = to_bytes(from_bytes(shapes.pictures()).mean(0))[None]
    wanted = fineness(mean) / fineness(shapes.pictures()).mean()
    assert blur[0] == pytest.approx(float(wanted), rel=0.02)
    assert blur[0] < 0.5
    assert blind[:3] == sorted(blind[:3], reverse=True)
    assert blind[count - 1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("t", [1.0, 0.9, 0.5, 0.1])
def test_faults_have_closed_forms(t: float) -> None:
    """x0 = (x - sigma eps) / alpha multiplies an error of eps by sigma / alpha; the data's own is its own."""
    x0 = 3 * torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    level = NoiseLevel(1 - t, t)
    found = {name: one_jump.fault(registered("predictions", name)(), level, x0) for name in one_jump.PREDICTIONS}
    scale = 3.0
    wanted = {
        "noise": 0.01 * level.sigma / (level.alpha * scale) if t < 1 else None,
        "data": 0.01,
        "v": 0.01 * ((t * scale) ** 2 + (1 - t) ** 2) ** 0.5 * t / ((1 - t) ** 2 + t**2) / scale,
        "flow": 0.01 * (scale**2 + 1) ** 0.5 * level.sigma / scale,
    }  # fmt: skip
    for name, value in wanted.items():
        assert found[name] == (None if value is None else pytest.approx(value, rel=0.03)), name


# seeds


def test_seeds(shapes: PictureSet, tmp_path: Path) -> None:
    right = seeds.study(known.lab(known.engine(shapes), shapes, tmp_path))
    assert column(right, "1 - cosine")[0] == pytest.approx(0, abs=1e-9)
    assert column(right, "1 - cosine")[1] == pytest.approx(column(right, "1 - cosine")[2])
    assert right.sentences[0].startswith(
        "Of 12 pictures drawn once more, each by itself and not among others, the largest "
    )
    assert "of any channel is 0 of 255" in right.sentences[0]
    assert column(right, "kind", 1) == ["plain", "toned"]
    assert column(right, "own caption first", 1) == [1.0, 1.0]
    model = known.engine(shapes, cfg_scale=0.0)
    assert column(seeds.study(known.lab(model, shapes, tmp_path)), "1 - cosine")[0] > 0.1


def test_a_seed_that_is_forgotten_is_found_out(shapes: PictureSet, tmp_path: Path) -> None:
    """The control: a model whose picture depends on its row."""
    model = known.engine(shapes, cfg_scale=0.0)
    draw = model.pixels
    model.pixels = lambda requests: draw([replace(r, seed=row) for row, r in enumerate(requests)])  # type: ignore[method-assign]
    told = seeds.study(known.lab(model, shapes, tmp_path)).sentences[0]
    assert "channel is 0 " not in told


def test_whose_fault_it_is() -> None:
    """The example of Shrout and Fleiss 1979, table 2: six targets, four judges, ICC(1, 1) = 0.17."""
    table = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert seeds.of_prompts(torch.tensor(table).T) == pytest.approx(0.17, abs=0.005)
    assert seeds.of_prompts(torch.tensor([[1.0, 0, 1], [1, 0, 1]])) == 1
    assert seeds.of_prompts(torch.tensor([[1.0, 0], [0, 1]])) == 0
    assert seeds.of_prompts(torch.ones(2, 3)) is None


# prompts


def test_prompts_are_chosen_by_rule(shapes: PictureSet) -> None:
    line = kinds(shapes, "validation")
    assert {kind: len(items) for kind, items in line.items()} == {"plain": 6, "toned": 0, "tier1": 3, "tier2": 3}
    chosen = choose(shapes, "validation", 10)
    assert chosen.tiers == ["plain"] * 6 + ["tier1"] * 2 + ["tier2"] * 2
    assert chosen.items[:6] == line["plain"]
    assert chosen.items[:3] != sorted(chosen.items[:3]), "the line is not the set's order"
    assert choose(shapes, "validation", 3).items == [
        line["plain"][0],
        line["plain"][1],
        line["tier1"][0],
        line["tier2"][0],
    ]
    told = [row.kind for row in mixed(shapes, "validation", 20)]
    assert sorted(told) == ["plain"] * 6 + ["tier1"] * 3 + ["tier2"] * 3
    assert told != sorted(told)


def test_equal_pictures_are_asked_for_once(shapes: PictureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "identical", [0] * 12)
    assert [len(items) for items in kinds(shapes, "validation").values()] == [1, 0, 1, 1]


class Blank(known.Ids):
    """Reads any prompt, and nothing in it."""

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        return torch.empty(len(prompts), 0, dtype=torch.int64)


def test_the_hundred(tmp_path: Path, shapes: PictureSet) -> None:
    asked = listed()
    assert len({each.prompt for each in asked}) == len(asked) == 100
    assert [sum(e.kind == k for e in asked) for k in ("plain", "toned", "tier1", "tier2")] == [55, 15, 15, 15]
    assert HUNDRED.read_text("utf-8").count("\n  {") == 100
    model = known.engine(shapes)
    own = model.model
    model = Engine(Model(own.parts, {"text": Blank()}, own.record))  # type: ignore[dict-item]
    lesson = hundred.study(known.lab(model, shapes, tmp_path, steps=1))
    assert lesson.key.count("\n") == 2 + 100
    assert f"100. {asked[99].prompt} ({asked[99].kind})" in lesson.key
    page = " ".join([*lesson.sentences, *map(str, lesson.tables)])
    assert not any(each.prompt in page for each in asked if " " in each.prompt), "nothing is given away"
