"""Describes a picture set in figures and on a contact sheet."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from unnoise.data.report import REPORT, summary
from unnoise.data.sheet import contact_sheet
from unnoise.data.store import PictureSet
from unnoise.errors import UnnoiseError

TITLED = 400  # up to this number pictures are shown at their own size, above their captions
MAX_SHOWN = 6000  # of more pictures this number is shown, evenly chosen


def figures(pictures: PictureSet) -> dict[str, str]:
    """The rows of the table of ``unnoise data show``."""
    pixels = pictures.pictures()
    captions = [caption for texts in pictures.captions for caption in texts if caption]
    words = sorted(len(caption.split()) for caption in captions)
    silent = sum(not any(texts) for texts in pictures.captions)
    families = Counter(pictures.family).values()
    own = pictures.manifest.get("origin", {}).get("kind") == "folder"
    table = {
        "pictures": f"{len(pictures)} of {pixels.shape[3]} x {pixels.shape[2]}",
        **(sizes(pictures) if own else {}),
        "groups of near duplicates" if own else "tone families": f"{sum(n > 1 for n in families)}, "
        f"{sum(n == 1 for n in families)} single",
        "identical to another": f"{sum(n for n in Counter(pictures.identical).values() if n > 1)}",
        "captions": f"{len(captions)}, {len(captions) / max(1, len(pictures)):.1f} a picture",
        "different captions": f"{len(set(captions))}",
        "words a caption": f"median {words[len(words) // 2]}, longest {words[-1]}" if words else "none",
    }
    if silent:
        table["without a caption"] = f"{silent}"
    if any(n != 1 for n in pictures.repeats):
        table["repeats"] = f"{min(pictures.repeats)} to {max(pictures.repeats)}, {sum(pictures.repeats)} in all"
    table["trained by the autoencoder"] = f"{len(pictures.select('autoencoder'))}"
    table["trained by the denoiser"] = f"{len(pictures.select('denoiser'))}"
    held_out = Counter(place for place in zip(pictures.tier, pictures.part, strict=True) if place[1] != "train")
    table |= {f"  {tier}, {part}": f"{n}" for (tier, part), n in sorted(held_out.items())}
    return table


def sizes(pictures: PictureSet) -> dict[str, str]:
    """How large the pictures were before, and how many had to be enlarged."""
    sides = [(record["width"], record["height"]) for record in pictures.attributes]
    shortest = sorted(min(each) for each in sides)
    wide = sum(width > height for width, height in sides)
    high = sum(width < height for width, height in sides)
    return {
        "shorter side before": f"{shortest[0]} to {shortest[-1]} pixels, median {shortest[len(shortest) // 2]}",
        "shape before": f"{wide} wide, {high} high, {len(sides) - wide - high} square",
        "enlarged": f"{pictures.manifest.get('enlarged', 0)}",
    }


def report_lines(path: Path, limit: int = 5) -> list[str]:
    """The lines of the set's report, if it has one: files left out, duplicates, missing captions."""
    try:
        return list(summary(json.loads((path / REPORT).read_text("utf-8")), limit))
    except FileNotFoundError:
        return []
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError):
        return [f"{path / REPORT} is damaged, and not shown"]


def write_sheet(pictures: PictureSet, target: Path) -> int:
    """Write a contact sheet of the set as a PNG file; return how many pictures are on it.

    Raises:
        UnnoiseError: it cannot be written.
    """
    count = len(pictures)
    items = range(count) if count <= MAX_SHOWN else [place * count // MAX_SHOWN for place in range(MAX_SHOWN)]
    few = count <= TITLED
    titles = [pictures.captions[i][0] or "-" for i in items] if few else ()
    columns, size = (max(1, min(12, round((1.5 * count) ** 0.5))), 128) if few else (60, 48)
    try:
        contact_sheet(pictures.pictures(list(items)), target, columns, size, titles)
    except (OSError, ValueError) as error:
        raise UnnoiseError(f"cannot write {target} ({error})", "name a .png file with --sheet") from None
    return len(items)
