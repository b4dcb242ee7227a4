"""Shows a picture in the terminal: by the protocols of kitty and iTerm2, else in coloured half blocks.

The terminal is not queried, since its answer could end up in the user's input: environment variables show what it
supports. Inside tmux and screen, which swallow pictures, and in unknown terminals, half blocks are
drawn: one character is two pixels, the upper one in its foreground and the lower one in its background colour.
"""

from __future__ import annotations

import base64
import io
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TextIO

from unnoise.errors import UnnoiseError

if TYPE_CHECKING:
    from PIL import Image

Way = Literal["kitty", "iterm", "truecolor", "256"]
CHUNK = 4096  # the most that kitty's protocol takes at once
WIDEST = 64  # columns of half blocks


def choose(env: Mapping[str, str], stream: TextIO) -> Way:
    """The way in which this terminal shows pictures.

    Raises:
        UnnoiseError: it cannot: the stream is a file or a pipe, or has no colours or no half blocks.
    """
    hint = "leave --show out; the pictures are files"
    if not stream.isatty():
        raise UnnoiseError("--show needs a terminal, and standard output is none", hint)
    term, program = env.get("TERM", ""), env.get("TERM_PROGRAM", "")
    if term in ("", "dumb"):
        raise UnnoiseError("this terminal shows no pictures", hint)
    nested = "TMUX" in env or "STY" in env or term.startswith(("screen", "tmux"))
    if not nested and ("KITTY_WINDOW_ID" in env or term in ("xterm-kitty", "xterm-ghostty")):
        return "kitty"
    if not nested and (program in ("iTerm.app", "WezTerm", "mintty") or env.get("LC_TERMINAL") == "iTerm2"):
        return "iterm"
    if "NO_COLOR" in env:
        raise UnnoiseError("NO_COLOR is set, and this terminal shows pictures only in colours", hint)
    if (stream.encoding or "").lower().replace("-", "") != "utf8":
        raise UnnoiseError("this terminal cannot show half blocks, of which pictures are made", hint)
    return "truecolor" if env.get("COLORTERM") in ("truecolor", "24bit") else "256"


def as_text(image: Image.Image, way: Way, columns: int = WIDEST) -> str:
    """The characters that show an RGB picture in a terminal, with a line break.

    Args:
        columns: the maximal width of half blocks; pictures sent as files are shown at their own size.
    """
    if way in ("truecolor", "256"):
        return _half_blocks(image, way, min(columns, WIDEST))
    data = io.BytesIO()
    image.save(data, "PNG")
    text = base64.standard_b64encode(data.getvalue()).decode()
    if way == "iterm":
        return f"\x1b]1337;File=inline=1;size={len(data.getvalue())}:{text}\x07\n"
    parts = [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)]
    keys = ["a=T,f=100,q=2,"] + [""] * (len(parts) - 1)  # q=2: kitty must not answer
    more = ["m=1"] * (len(parts) - 1) + ["m=0"]
    return "".join(f"\x1b_G{k}{m};{p}\x1b\\" for k, m, p in zip(keys, more, parts, strict=True)) + "\n"


def _half_blocks(image: Image.Image, way: Way, columns: int) -> str:
    import numpy as np
    from PIL import Image

    width = min(columns, image.width)
    height = max(2, round(image.height * width / image.width / 2) * 2)
    dots = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BOX)).tolist()
    lines = []
    for y in range(0, height, 2):
        cells = [f"\x1b[38;{_colour(dots[y][x], way)};48;{_colour(dots[y + 1][x], way)}m▀" for x in range(width)]
        lines.append("".join(cells) + "\x1b[0m\n")
    return "".join(lines)


def _colour(rgb: Sequence[int], way: Way) -> str:
    """A colour in a terminal's notation: 24 bits, or the nearest of the common 6 x 6 x 6 cube."""
    if way == "truecolor":
        return "2;{};{};{}".format(*rgb)
    red, green, blue = (0 if c < 48 else 1 if c < 115 else (c - 35) // 40 for c in rgb)
    return f"5;{16 + 36 * red + 6 * green + blue}"


def show(image: Image.Image, way: Way) -> None:
    """Shows a picture on standard output, between printed lines."""
    sys.stdout.write(as_text(image, way, shutil.get_terminal_size().columns))
    sys.stdout.flush()
