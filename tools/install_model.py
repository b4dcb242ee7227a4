"""Puts a finished training in the place of the model that comes with unnoise, with its card and its training pictures.

    python tools/install_model.py runs/default-model [--steps 10] [--solver dpmpp-2m] [--cfg-scale 2]
    python tools/install_model.py runs/default-model --autoencoder runs/decoder
    python tools/install_model.py --data data/emoji

The settings that are named become the model's defaults for drawing. ``--data`` names the picture set that it was
trained on, of which the index is made that ``unnoise nearest`` searches; alone it leaves the model as it is.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import tyro

from unnoise.data.store import open_set
from unnoise.engine.load import PARTS, default_model, default_pictures, model_folder
from unnoise.errors import UnnoiseError
from unnoise.recipes.begin import same_latents
from unnoise.study.nearest import build, save
from unnoise.weights.model import load_model, save_model
from unnoise.weights.record import read_file
from unnoise.weights.verify import verify_model

CARD = Path(__file__).resolve().parent.parent / "docs" / "model-card.md"
CARD_NAME = "MODEL_CARD.md"


NOTICE = """The pictures in pictures.webp are drawn with Noto Color Emoji, {version}.
Copyright Google Inc. Source: https://github.com/googlefonts/noto-emoji

Of the font: {licence}
(https://openfontlicense.org). The artwork that it is made of is licensed under the Apache License, Version 2.0.

They are the pictures that the default model was trained on, at 64 x 64 pixels, so that what it draws can be compared
with them. The captions in index.json are made from the names of the Unicode emoji tables (Unicode licence) and of the
Python package "emoji" (3-clause BSD licence).
"""


def install(
    run: tyro.conf.Positional[Path | None] = None,
    data: Path | None = None,
    autoencoder: Path | None = None,
    steps: int | None = None,
    solver: str | None = None,
    spacing: str | None = None,
    cfg_scale: float | None = None,
) -> None:
    """Write the default model's folder anew, and the index of its training pictures beside it.

    Args:
        run: a finished training, or a model folder; the model is left as it is without one.
        data: the picture set that it was trained on; the index is left as it is without one.
        autoencoder: a training with --keep-latents, whose decoder is taken in place of the run's own.
        steps, solver, spacing, cfg_scale: defaults for drawing, in place of the run's own.
    """
    if run is not None:
        changes = {"steps": steps, "solver": solver, "spacing": spacing, "cfg_scale": cfg_scale}
        install_model(run, changes, autoencoder)
    if data is not None:
        install_index(data)
    folders = [default_model(), default_pictures()]
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in folders if folder.is_dir()]
    for folder, size in zip(folders, sizes, strict=False):
        print(f"{folder}: {size / 1e6:.2f} MB")


def install_index(data: Path) -> None:
    """Writes the index of a picture set, with whose pictures they are."""
    pictures = open_set(data)
    font = pictures.manifest["origin"]["font"]
    save(build(pictures), default_pictures(), NOTICE.format(version=font["version"], licence=font["licence"]))


def without_links(card: str) -> str:
    """A page of docs as it may stand elsewhere: a link to a file of the repository becomes its path there."""

    def as_text(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = posixpath.normpath(posixpath.join("docs", target.partition("#")[0]))
        return path if text in target else f"{text} ({path})"

    return re.sub(r"\[([^\]]+)\]\((?!https?:)([^)]+)\)", as_text, card)


def install_model(run: Path, changes: dict[str, Any], autoencoder: Path | None = None) -> None:
    """Writes the model's folder."""
    folder = model_folder(run)
    verify_model(folder)
    modules, record = load_model(folder, PARTS)
    if autoencoder is not None:
        verify_model(model_folder(autoencoder))
        other, theirs = load_model(model_folder(autoencoder), ["autoencoder"])
        if not same_latents(modules["autoencoder"], other["autoencoder"]):
            raise UnnoiseError(f"{autoencoder} makes other latents than {run} knows", "train it with --keep-latents")
        modules["autoencoder"] = other["autoencoder"]
        record["trained"]["autoencoder"] = theirs["trained"]["autoencoder"]
    defaults = record["defaults"] | {name: value for name, value in changes.items() if value is not None}
    info = {"name": "unnoise-emoji", "trained": record["trained"], "defaults": defaults}
    kept = [name for name in record["files"] if not name.endswith((".safetensors", CARD_NAME))]
    texts = {name: read_file(folder, record, name).decode() for name in kept}
    texts[CARD_NAME] = without_links(CARD.read_text(encoding="utf-8"))
    save_model(default_model(), modules, info, texts, replace=True)


if __name__ == "__main__":
    tyro.cli(install)
