"""``unnoise noise``: shows how noise is added to one of your pictures."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from unnoise.core import checks
from unnoise.notes import tell

if TYPE_CHECKING:
    from PIL import Image


def noise(
    picture: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")],
    path: str = "ddpm-linear",
    frames: int = 11,
    size: int = 192,
    seed: int = 0,
    out: Path = Path("pictures"),
) -> None:
    """Show the forward process on a picture: from data at t = 0 to noise at t = 1000, as a strip and a GIF.

    The share of one noise sample grows from frame to frame. Each frame shows the state, divided by its own size if
    that is above 1. Below it are t and the signal-to-noise ratio, which is all that a network must know.

    Args:
        picture: a PNG, JPEG or WebP file.
        path: how signal and noise are mixed; `unnoise list paths` names them.
        frames: number of frames of the strip, 2 to 50; the GIF has four times as many.
        size: longer side of a frame in pixels, 16 to 1024.
        seed: seed of the noise.
        out: the folder for both files; nothing in it is overwritten.
    """
    checks.whole("--frames", frames, 2, 50)
    checks.whole("--size", size, 16, 1024)
    checks.seed("--seed", seed)

    from unnoise.cli.output import ready_folder, save, slug
    from unnoise.core.registry import find
    from unnoise.data.square import open_picture
    from unnoise.study.film import gif, strip
    from unnoise.study.forward import noised

    mixing, original = find("paths", path)(), scaled(open_picture(picture), size)
    few = noised(original, mixing, frames, seed)
    many = noised(original, mixing, 4 * frames, seed)
    data = io.BytesIO()
    strip([[frame.image for frame in few]], [f"t {1000 * f.t:.0f}  {decibel(f.snr)}" for f in few]).save(data, "PNG")
    stem = f"{slug(picture.stem)}-{path}"
    with ready_folder(out):
        tell(str(save(data.getvalue(), out, f"{stem}-noised")))
        tell(str(save(gif([frame.image for frame in many], 100), out, f"{stem}-noised", ".gif")))


def scaled(image: Image.Image, size: int) -> Image.Image:
    """The picture resized so that its longer side is ``size``."""
    factor = size / max(image.size)
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))


def decibel(snr: float) -> str:
    """A signal-to-noise ratio of powers in dB."""
    if snr == 0 or math.isinf(snr):
        return "no signal" if snr == 0 else "no noise"
    return f"{10 * math.log10(snr):+.0f} dB"
