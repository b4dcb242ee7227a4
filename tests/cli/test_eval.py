"""``unnoise eval`` from checkpoints to the leaderboard, on tiny models; and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from study.judged import judge, save_judge
from tiny import components, tokenizer
from unnoise.cli import progress
from unnoise.cli.eval import distinct, label
from unnoise.cli.main import main
from unnoise.data.store import open_set
from unnoise.study.leaderboard import FIGURES, Board, after, choose_prompts, markdown, plot


@pytest.mark.slow
def test_one_command_writes_table_plots_and_sheets(
    tiny_model: Path,
    shapes: Path,
    eyes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "SECONDS", -1.0)
    out = tmp_path / "docs" / "board"
    args = ["eval", tiny_model, tiny_model, "--judge", eyes, "--data", shapes, "--out", out, "--json"]
    args += ["--prompts", 3, "--seeds", 2, "--steps", 2]
    assert main([str(each) for each in args]) == 0
    said = capsys.readouterr()
    assert re.search(r"^1 of 2 batches of tiny, \d:\d\d:\d\d left$", said.err, re.M), "how far it is"
    board = json.loads(said.out)
    assert json.loads((out / "leaderboard.json").read_text()) == board
    names = [row["name"].split(":")[0] for row in board["rows"]]
    assert names == ["tiny", "tiny (2)", "ceiling", "floor", "memoriser"]
    first, second, ceiling, floor, memoriser = (row["figures"] for row in board["rows"])
    assert first == second, "the same model, seeds and prompts"
    assert set(first) == set(FIGURES)
    assert [ceiling["variety"], ceiling["copied"], floor["copied"], memoriser["variety"]] == [None] * 4
    assert ceiling["FD-local"] == floor["FD-local"]
    assert board["exam"]["passed"] is False
    assert "FAILED its exam" in (out / "leaderboard.md").read_text()
    assert {path.name for path in out.glob("*.svg")} == {f"{name.lower()}.svg" for name in FIGURES}
    assert sorted(path.name for path in out.glob("*.png")) == [f"sheet-{n}.png" for n in range(1, 6)]
    assert Image.open(out / "sheet-1.png").size[0] > 128
    page = (out / "leaderboard.md").read_text()
    assert str(tmp_path) not in page, "a name, and no path"
    assert "- command: `unnoise eval tiny tiny --prompts" in page
    assert re.search(r"- weights: tiny ([0-9a-f]{16}), tiny \(2\) \1\n", page), "which weights they are"
    assert "- settings of tiny (2): size 128x128, steps 2, solver " in page
    assert re.search(rf"- judge: {eyes.name}, weights [0-9a-f]{{16}}, FAILED its exam", page)
    pictures = open_set(shapes)
    said = [pictures.captions[item][0] for item in choose_prompts(pictures, "validation", 3).items]
    assert page.endswith(f"its sheet. From left to right, ten a row: {'; '.join(said)}.\n")
    linked = re.findall(r"\]\((.*?)\)", page)
    assert len(linked) == 5 + len(FIGURES)
    assert all((out / name).is_file() for name in linked)


def test_the_board_is_right_about_what_is_known(shapes: Path) -> None:
    """Real pictures before a judge that sees: everything is found, and nothing is found with other captions."""
    pictures = open_set(shapes)
    prompts = choose_prompts(pictures, "validation", 10)
    assert prompts.tiers == ["trained"] * 6 + ["tier1"] * 3 + ["tier2"] * 3
    board = Board(judge(), pictures, prompts)
    real = board.real[None]
    right, wrong = board.row("right", real), board.row("wrong", real.roll(1, 1))
    for tier in ("trained", "tier1", "tier2"):
        assert (right.figures[tier].value, wrong.figures[tier].value) == (1.0, 0.0)  # type: ignore[union-attr]
    for figure in ("FD-local", "KD-local", "saturation"):
        assert right.figures[figure].value == pytest.approx(0, abs=1e-9)  # type: ignore[union-attr]
    toned = prompts.items[0]
    pictures.attributes[toned]["tones"] = ["dark"]
    spoilt = real.clone()
    spoilt[0, 0] = 255
    found = board.row("the toned one is lost", spoilt).figures
    assert (found["trained"].value, found["plain"].value) == (pytest.approx(5 / 6), 1.0)  # type: ignore[union-attr]
    one = board.row("one", real[:, :1].expand_as(real))
    assert one.figures["diversity"].value == pytest.approx(0, abs=1e-9)  # type: ignore[union-attr]
    assert one.figures["FD-local"].low > 0  # type: ignore[union-attr]
    rows, copies = board.controls(components()["autoencoder"], "tiny")  # type: ignore[arg-type]
    assert copies.shape == (6,)
    drawn = {bytes(x.numpy()) for x in rows[2].pictures}
    known = {bytes(x.numpy()) for x in after(components()["autoencoder"], board.training)}  # type: ignore[arg-type]
    assert len(drawn) > 1
    assert len(drawn - known) <= 1, "the memoriser draws training pictures, but for a rounding"
    page = markdown([right, wrong], {"part": "validation"})
    assert page.count("\n| ") == 3
    assert plot([right, wrong], "tier1").count("<circle") == 2
    assert plot([right], "copied").count("<circle") == 0


def refused(args: list[object], capfd: pytest.CaptureFixture[str]) -> str:
    assert main(["eval", *map(str, args)]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    return line


def test_what_is_refused(
    tiny_model: Path, shapes: Path, eyes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common: list[object] = [tiny_model, "--judge", eyes, "--data", shapes, "--out", tmp_path / "out"]
    assert "from 2 to 1000" in refused([*common, "--prompts", 1], capfd)
    assert "from 1 to 16" in refused([*common, "--seeds", 0], capfd)
    assert "has 0 pictures of tier1, test" in refused([*common, "--part", "test"], capfd)
    assert "no model is named" in refused(common[1:], capfd)
    assert "steps 0 is out of range" in refused([*common, "--steps", 0], capfd)
    kin = save_judge(tmp_path / "kin", tokenizer())
    assert "share a tokenizer; train a separate judge" in refused([*common, "--judge", kin], capfd)
    assert not (tmp_path / "out").exists()


def test_names_of_rows() -> None:
    assert label(Path("runs/emoji-flow/model")) == label(Path("runs/emoji-flow")) == "emoji-flow"
    assert distinct(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]
