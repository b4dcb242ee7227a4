"""``unnoise nearest``: the training pictures nearest to a picture."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from unnoise.cli.output import ready_folder, save, slug
from unnoise.core import checks
from unnoise.errors import UnnoiseError

if TYPE_CHECKING:
    from PIL import Image

    from unnoise.study.nearest import Index

MAX_COUNT, MAX_PICTURES = 50, 1000


def nearest(
    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")] = (),
    data: Path | None = None,
    count: int = 3,
    out: Path | None = None,
    show: bool = False,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Find the training pictures nearest to given pictures, also if moved, scaled, mirrored or in other colours.

    Args:
        pictures: PNG, JPEG or WebP files.
        data: a picture set; by default the training pictures of the model that comes with unnoise.
        count: number of training pictures to find for each.
        out: a folder for sheets of each picture beside the nearest ones.
        show: show them in the terminal.
        as_json: print the result as JSON on standard output.
    """
    from unnoise.cli import terminal

    if not 1 <= len(pictures) <= MAX_PICTURES:
        what = "the picture is missing" if not pictures else f"{len(pictures)} pictures are too many"
        raise UnnoiseError(what, f"name 1 to {MAX_PICTURES} picture files")
    checks.whole("--count", count, 1, MAX_COUNT)
    if show and as_json:
        raise UnnoiseError("--show and --json both write to standard output", "leave one of them out")
    way = terminal.choose(os.environ, sys.stdout) if show else None

    from unnoise.data.square import open_picture
    from unnoise.study.nearest import beside, square

    images = [square(open_picture(path)) for path in pictures]
    index = training_pictures(None) if data is None else of_set(data)
    results = []
    with ready_folder(out) if out else nullcontext():
        for path, image in zip(pictures, images, strict=True):
            result = find_nearest(index, image, count, out, slug(path.stem))
            results.append({"picture": str(path), **result})
            if as_json:
                continue
            print(path)
            print("\n".join(lines(result)))
            if way:
                terminal.show(beside(index, image, index.search_image(image, count)), way)
    if as_json:
        print(json.dumps(results))


def training_pictures(model: Path | str | None) -> Index:
    """The index of the pictures that a model was trained on.

    Raises:
        UnnoiseError: it is not the default model, the only one with an index.
    """
    from unnoise.engine.load import default_model, default_pictures, model_folder
    from unnoise.study.nearest import open_index

    if model is not None and model_folder(model).resolve() != default_model().resolve():
        hint = "draw, and then name its picture set: `unnoise nearest PICTURE --data SET`"
        raise UnnoiseError("--nearest knows only the training pictures of the default model", hint)
    return open_index(default_pictures())


def of_set(path: Path) -> Index:
    """The index of a picture set, computed now.

    Raises:
        UnnoiseError: there is no picture set, or none of its pictures is for training.
    """
    from unnoise.data.store import open_set
    from unnoise.study.nearest import build

    return build(open_set(path))


def find_nearest(index: Index, image: Image.Image, count: int, out: Path | None, stem: str) -> dict[str, Any]:
    """Finds the training pictures nearest to a picture, and writes a sheet of them if there is a folder.

    Returns:
        {"training_pictures": [{"distance", "caption", "mirrored"}]}, the nearest first, and the file as "nearest".
    """
    from unnoise.study.nearest import beside

    matches = index.search_image(image, count)
    result: dict[str, Any] = {
        "training_pictures": [
            {"distance": round(match.distance, 4), "caption": match.caption, "mirrored": match.mirrored}
            for match in matches
        ]
    }
    if out is not None:
        data = io.BytesIO()
        beside(index, image, matches).save(data, "PNG")
        result["nearest"] = str(save(data.getvalue(), out, f"{stem}-nearest"))
    return result


def lines(result: dict[str, Any]) -> list[str]:
    """What ``listed`` found, as lines to print."""
    rows = [
        f"  {match['distance']:.2f}  {match['caption']}" + "  (mirrored)" * match["mirrored"]
        for match in result.get("training_pictures", ())
    ]
    return [*([result["nearest"]] if "nearest" in result else []), *rows]
