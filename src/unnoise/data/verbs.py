"""The verbs of ``unnoise data``: build the default picture set or one of your own, show a set."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import tyro

from unnoise.data.square import Fit
from unnoise.notes import progress, tell, width


def emoji(out: Path = Path("data/emoji"), font: Path | None = None) -> None:
    """Build the captioned picture set from this computer's colour-emoji font.

    Args:
        out: the folder to make; one that already holds this set is left as it is.
        font: a font file with CBDT bitmaps, such as NotoColorEmoji.ttf; by default it is searched for.
    """
    from unnoise.data.emoji import build_emoji

    before = (out / "manifest.json").exists()
    with progress("drawing", "pictures") as line:
        task = line.add_task("", total=None)
        manifest = build_emoji(out, font, lambda count, total: line.update(task, completed=count, total=total))
    held_out = sum(n for name, n in manifest["splits"].items() if name.startswith("tier"))
    record = manifest["origin"]["font"]
    tell(
        f"{out}: {'already there, ' if before else ''}{manifest['pictures']} pictures, "
        f"{manifest['captions']} captions, {held_out} held out, {manifest['skipped']} sequences that the font lacks"
    )
    tell(f"{record['family']}, {record['version'].split(';')[0]}, SHA-256 {record['sha256']}")


def folder(
    path: tyro.conf.Positional[Path],
    out: Path | None = None,
    size: int | None = None,
    fit: Fit = "crop",
    background: str = "white",
    keep_back: float = 0.1,
    near: float = 4.0,
) -> None:
    """Build a picture set from a folder of your own pictures: PNG, JPEG or WebP, with or without captions.

    Args:
        path: a folder with text files or a metadata.jsonl beside its pictures, a kohya TOML, a .parquet or a .tar.
        out: the folder to make; by default data/ and the name of the pictures' folder.
        size: side of the square pictures in pixels; by default 128, or the TOML's resolution.
        fit: crop takes the middle, pad keeps the whole picture and pads it with the background.
        background: a colour, "white" or "#ffcc00", for padding and behind transparent parts.
        keep_back: share of the pictures held out for validation.
        near: largest colour difference of near duplicates, in levels of 255; they stay on one side of the split.
    """
    from unnoise.data.folder import FolderSettings, build_folder
    from unnoise.data.report import REPORT
    from unnoise.data.show import report_lines

    if out is None:
        out = Path("data") / (path.resolve().name if path.is_dir() else path.stem)
    before = (out / "manifest.json").exists()
    with progress("reading", "pictures") as line:
        task = line.add_task("", total=None)
        settings = FolderSettings(size, fit, background, keep_back, near)
        manifest = build_folder(path, out, settings, lambda count, n: line.update(task, completed=count, total=n))
    side, held_out = manifest["origin"]["settings"]["size"], manifest["splits"].get("tier1/validation", 0)
    idle = manifest["not_used"]
    tell(
        f"{out}: {'already there, ' if before else ''}{manifest['pictures']} pictures of {side} x {side}, "
        f"{manifest['captions']} captions, {held_out} kept back, {manifest['left_out']} left out"
        + (f", {idle} {'file' if idle == 1 else 'files'} not used" if idle else "")
    )
    for each in report_lines(out):
        tell(f"  {each}")
    again = f"unnoise data show --path {shlex.quote(os.path.abspath(out))}"
    tell(f"all of it in {out / REPORT}; look at the set: {again}")


def show(path: Path = Path("data/emoji"), sheet: Path | None = None) -> None:
    """Show what a picture set holds, and write a contact sheet of it.

    Args:
        path: the folder of the set.
        sheet: the PNG file to write; by default beside the folder.
    """
    from rich.console import Console
    from rich.table import Table

    from unnoise.data.show import figures, report_lines, write_sheet
    from unnoise.data.store import open_set

    pictures = open_set(path)
    table = Table(show_header=False)
    for name, value in figures(pictures).items():
        table.add_row(name, value)
    target = sheet or path.resolve().with_name(f"{path.resolve().name}-sheet.png")
    count = write_sheet(pictures, target)
    Console(width=width()).print(table)
    for line in report_lines(path):
        print(line)
    print(f"SHA-256 {pictures.sha256}")
    print(f"contact sheet{'' if count == len(pictures) else f' of {count} of them'} at {target}")
