"""``unnoise generate --grid``: each cell is the picture made alone, and the file says of each how it was made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unnoise.cli.grid import Axis, parse, split
from unnoise.cli.main import main
from unnoise.cli.replay import worst
from unnoise.engine.engine import Engine
from unnoise.engine.metadata import Record, grid_to_png, read_pictures
from unnoise.errors import UnnoiseError
from unnoise.study.film import table

Said = pytest.CaptureFixture[str]
SOLVERS = ("ddim(eta=1, rule=ancestral)", "heun")


def test_axes_are_written_as_settings_are() -> None:
    assert parse(["steps=5,10", "solver=ddim(eta=0.5, x=[1,2]),heun"]) == [
        Axis("steps", ("5", "10")),
        Axis("solver", ("ddim(eta=0.5, x=[1,2])", "heun")),
    ]
    assert parse([]) == []
    assert split("a),b") == ["a)", "b"]
    assert Axis("steps", ("5",)).labels == ["steps 5"]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["stepz=1,2"], "no setting 'stepz'"),
        (["steps"], "lacks a value"),
        (["steps="], "lacks a value"),
        (["steps=1,,2"], "lacks a value"),
        (["steps=1,1"], "twice"),
        (["steps=1,x"], "wants whole numbers, not 'x'"),
        (["cfg-scale=1,nan"], "wants numbers, not 'nan'"),
        (["seed=-1"], "seed -1 is out of range"),
        (["seed=" + "9" * 30], "wants whole numbers"),
        (["steps=1", "steps=2"], "both axes of the grid are steps"),
        (["steps=1", "seed=2", "solver=heun"], "3 settings make no grid"),
        (["seed=" + ",".join(map(str, range(401)))], "401 pictures is too large"),
    ],
)
def test_what_is_no_axis_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(UnnoiseError) as error:
        parse(texts)
    assert said in str(error.value)


@pytest.fixture
def grid(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> Path:
    monkeypatch.chdir(tmp_path)
    axes = ["--grid", "steps=1,3,4", "--grid", "solver=ddim(eta=1),heun"]
    assert main(["generate", "(red:1.2) apple", "--seed", "7", *axes, "--model", str(tiny_model)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    path, told = out.splitlines()
    assert path == "pictures/red-1-2-apple-7-grid.png  grid"
    assert told.startswith("(red:1.2) apple: seed 7, a grid of 3 steps by 2 solver, ")
    return tmp_path / "pictures/red-1-2-apple-7-grid.png"


def test_each_cell_is_the_picture_made_alone(grid: Path, engine: Engine) -> None:
    found = read_pictures(grid)
    assert len(found) == 6
    for place, (image, record) in enumerate(found):
        row, column = divmod(place, 3)
        how = {"steps": (1, 3, 4)[column], "solver": ("ddim(eta=1)", "heun")[row]}
        assert image.tobytes() == engine.generate("(red:1.2) apple", seed=7, **how)[0].tobytes()  # type: ignore[arg-type]
        request = record.request
        assert {name: getattr(request, name) for name in how} == how
        assert (request.seed, record.row, record.batch, record.shared, request.weights) == (7, 0, 1, False, True)
    with Image.open(grid) as image:
        whole = json.loads(image.text["unnoise-grid"])  # type: ignore[attr-defined]
        text = image.text["parameters"]  # type: ignore[attr-defined]
    assert whole["axes"] == {"steps": ["1", "3", "4"], "solver": ["ddim(eta=1)", "heun"]}
    assert text.splitlines()[0] == "(red:1.2) apple"
    assert text.endswith('X Type: Steps, X Values: "1, 3, 4", Y Type: Sampler, Y Values: "DDIM, Heun"')


def test_a_grid_is_replayed_cell_by_cell(grid: Path, tiny_model: Path, capsys: Said) -> None:
    assert main(["replay", str(grid), "--model", str(tiny_model)]) == 0
    assert capsys.readouterr().out.endswith(": equal, every pixel is the same in all 6 pictures\n")
    with Image.open(grid) as image:
        whole, picture = json.loads(image.text["unnoise-grid"]), image.convert("RGB")  # type: ignore[attr-defined]
    left, top, *_ = whole["cells"][4]["box"]
    picture.paste((0, 0, 0), (left + 20, top + 20, left + 60, top + 60))
    cells = [(Record.from_json(cell["record"], "it"), cell["box"]) for cell in whole["cells"]]
    grid.write_bytes(grid_to_png(picture, whole["axes"], cells))
    with pytest.raises(SystemExit):
        main(["replay", str(grid), "--model", str(tiny_model)])
    assert ": different, at most" in (said := capsys.readouterr().out)
    assert said.rstrip().endswith("in the worst of 6 pictures")
    assert main(["replay", str(grid), "--model", str(tiny_model), "--out", "again"]) == 1
    assert "a grid, which is compared cell by cell" in capsys.readouterr().err


def test_the_worst_is_told() -> None:
    equal, close, closer = ("equal", {"psnr": None}), ("close", {"psnr": 41.0}), ("close", {"psnr": 60.0})
    far, size = ("different", {"psnr": 10.0}), ("different", {"psnr": None})
    assert worst([equal, closer, close, equal]) == close
    assert worst([close, far]) == far
    assert worst([size]) == size


BOXES = ([0, 0, 9999, 1], [0, 0, float("inf"), 1])


@pytest.mark.parametrize(
    "change", [{"cells": []}, *({"cells": [{"box": box, "record": {}}]} for box in BOXES), {"cells": 3}]
)
def test_records_that_lie_are_refused(change: dict[str, object], grid: Path, tiny_model: Path, capsys: Said) -> None:
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    with Image.open(grid) as image:
        info.add_itxt("unnoise-grid", json.dumps(json.loads(image.text["unnoise-grid"]) | change))  # type: ignore[attr-defined]
        image.save("edited.png", pnginfo=info)
    assert main(["replay", "edited.png", "--model", str(tiny_model)]) == 1
    assert "is damaged" in capsys.readouterr().err


def test_seeds_strengths_and_several_grids(tiny_model: Path, tmp_path: Path, capsys: Said) -> None:
    Image.new("RGB", (128, 128), "red").save(tmp_path / "red.png")
    more = ["--out", str(tmp_path / "out"), "--model", str(tiny_model), "--json", "--steps", "2"]
    start = ["--start", str(tmp_path / "red.png")]
    assert main(["generate", "x", "--grid", "seed=4,9", "--grid", "strength=0.2,0.9", *start, *more]) == 0
    (told,) = json.loads(capsys.readouterr().out)["pictures"]
    assert told["path"].endswith("x-grid.png")
    found = read_pictures(Path(told["path"]))
    cells = [(each.request.seed, each.request.strength) for _, each in found]
    assert cells == [(4, 0.2), (9, 0.2), (4, 0.9), (9, 0.9)]
    red = np.asarray(Image.new("RGB", (128, 128), "red"), dtype=int)
    gaps = [abs(np.asarray(image, dtype=int) - red).mean() for image, _ in found]
    assert gaps[0] < gaps[2]
    assert main(["generate", "x", "--grid", "cfg-scale=1,2", "--seed", "3", "--count", "2", *more]) == 0
    assert [each["seed"] for each in json.loads(capsys.readouterr().out)["pictures"]] == [3, 4]


def test_a_table_holds_every_picture_where_it_says() -> None:
    colours = [[(200, 30, 30), (30, 200, 30)], [(30, 30, 200), (90, 90, 90)], [(1, 2, 3), (4, 5, 6)]]
    rows = [[Image.new("RGB", (40, 30), colour) for colour in row] for row in colours]
    across, down = ["steps 5", "a label wider than any of the pictures"], ["cfg-scale 1", "b", "c"]
    drawn, boxes = table(rows, across, down)
    covered = np.zeros((drawn.height, drawn.width), dtype=bool)
    for row, line in zip(boxes, colours, strict=True):
        for box, colour in zip(row, line, strict=True):
            assert np.asarray(drawn.crop(box)).reshape(-1, 3).tolist() == [list(colour)] * 1200
            assert not covered[box[1] : box[3], box[0] : box[2]].any()
            covered[box[1] : box[3], box[0] : box[2]] = True
    ink = (np.asarray(drawn).min(2) < 128) & ~covered
    assert ink[: boxes[0][0][1]].any(), "labels above"
    assert ink[:, : boxes[0][0][0]].any(), "labels before the rows"
    bare, corners = table(rows[:1], ["a", "b"])
    assert corners[0][0][0] < boxes[0][0][0]
    assert bare.width < drawn.width
