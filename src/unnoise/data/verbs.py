"""The verbs of ``unnoise data``: build the default picture set, show a set."""

from __future__ import annotations

from pathlib import Path


def emoji(out: Path = Path("data/emoji"), font: Path | None = None) -> None:
    """Build the captioned picture set from this computer's colour-emoji font.

    Args:
        out: the folder to make; one that already holds this set is left as it is.
        font: a font file with CBDT bitmaps, such as NotoColorEmoji.ttf; searched for if left out.
    """
    from rich.progress import Progress

    from unnoise.data.emoji import build_emoji

    before = (out / "manifest.json").exists()
    with Progress(transient=True) as progress:
        task = progress.add_task("drawing")
        manifest = build_emoji(out, font, lambda done, total: progress.update(task, completed=done, total=total))
    held = sum(n for name, n in manifest["splits"].items() if name.startswith("tier"))
    record = manifest["origin"]["font"]
    print(
        f"{out}: {'already there, ' if before else ''}{manifest['pictures']} pictures, "
        f"{manifest['captions']} captions, {held} held out, {manifest['skipped']} sequences that the font lacks"
    )
    print(f"{record['family']}, {record['version'].split(';')[0]}, SHA-256 {record['sha256']}")


def show(path: Path = Path("data/emoji"), sheet: Path | None = None) -> None:
    """Show what a picture set holds, and write a contact sheet of it.

    Args:
        path: the folder of the set.
        sheet: the PNG file to write; beside the folder if left out.
    """
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    from unnoise.data.sheet import contact_sheet
    from unnoise.data.store import open_set
    from unnoise.errors import UnnoiseError

    pictures = open_set(path)
    pixels = pictures.pictures()
    table = Table(show_header=False)
    words = sorted(len(c.split()) for captions in pictures.captions for c in captions)
    families = Counter(pictures.family)
    rows = {
        "pictures": f"{len(pictures)} of {pixels.shape[3]} x {pixels.shape[2]}",
        "tone families": f"{sum(n > 1 for n in families.values())}, {sum(n == 1 for n in families.values())} single",
        "identical to another": f"{sum(n for n in Counter(pictures.identical).values() if n > 1)}",
        "captions": f"{len(words)}, {len(words) / max(1, len(pictures)):.1f} a picture",
        "words a caption": f"median {words[len(words) // 2]}, longest {words[-1]}" if words else "none",
        "trained by the autoencoder": f"{len(pictures.select('autoencoder'))}",
        "trained by the denoiser": f"{len(pictures.select('denoiser'))}",
        **{f"  {tier}, {part}": f"{n}" for (tier, part), n in _splits(pictures.tier, pictures.part)},
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
    print(f"SHA-256 {pictures.sha256}")
    target = sheet or path.resolve().with_name(f"{path.resolve().name}-sheet.png")
    try:
        contact_sheet(pixels, target, columns=60, size=48)
    except (OSError, ValueError) as error:
        raise UnnoiseError(f"cannot write {target} ({error})", "name a .png file with --sheet") from None
    print(f"contact sheet at {target}")


def _splits(tiers: list[str], parts: list[str]) -> list[tuple[tuple[str, str], int]]:
    """((tier, part), count) of what is held out, sorted."""
    from collections import Counter

    counts = Counter(zip(tiers, parts, strict=True))
    return sorted((key, n) for key, n in counts.items() if key[1] != "train")
