"""Draws a few prompts with the model that comes with unnoise, and puts all pictures on one sheet.

    python examples/demo.py                     prompts of its own
    python examples/demo.py "a green frog"      yours

The pictures of a prompt lie in a row of the sheet; the same prompt and seed give the same picture.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import unnoise
from unnoise.errors import UnnoiseError
from unnoise.pictures import sheet

PROMPTS = (
    "red apple",
    "blue heart",
    "woman firefighter, dark skin tone",
    "man astronaut, light skin tone",
    "grinning face",
    "cat face",
    "clock",
    "flag of Japan",
)
COUNT, SEED = 4, 1  # pictures for a prompt; the seed of the first


def main(prompts: tuple[str, ...] = PROMPTS, out: Path = Path("pictures/demo")) -> Path:
    """Draws the prompts into the folder ``out``; returns the path of the sheet."""
    engine = unnoise.load()
    out.mkdir(parents=True, exist_ok=True)
    drawn, started = [], time.perf_counter()
    for prompt in prompts:
        pictures = engine.generate(prompt, count=COUNT, seed=SEED)
        name = "-".join("".join(c if c.isalnum() else " " for c in prompt.lower()).split())[:48] or "picture"
        for number, picture in enumerate(pictures):
            picture.save(out / f"{name}-{SEED + number}.png")
        print(f"{prompt}: {out / name}-{SEED}.png to -{SEED + COUNT - 1}.png", flush=True)
        drawn += pictures
    path = out / "sheet.png"
    sheet(drawn, columns=COUNT).save(path)
    print(f"all {len(drawn)} of them: {path.resolve()}, {time.perf_counter() - started:.1f} s")
    return path


if __name__ == "__main__":
    try:
        main(tuple(sys.argv[1:]) or PROMPTS)
    except UnnoiseError as error:
        sys.exit(f"demo: {error}")
