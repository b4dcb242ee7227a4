"""Draws the pictures of tests/fixtures, each with its record: what every later version must be able to make again.

    python tools/draw_fixtures.py FOLDER

They were drawn once, by the code that fixtures.json names, and are not drawn anew: a change that cannot replay one of
them is a change of a rule, which the record's version selects or `unnoise replay` names. Add to them by a row here,
and copy only the new files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from unnoise.core.registry import index

SOLVERS = {  # prompts, so that no two pictures look alike
    "ddim": "red apple", "ddpm": "green frog", "deis": "blue heart", "dpm-2-a": "cat face", "dpm-adaptive": "banana",
    "dpm-solver": "dog face", "dpmpp-2m": "yellow star", "dpmpp-2m-sde": "rose", "dpmpp-2s": "tulip",
    "dpmpp-2s-a": "crown", "dpmpp-3m": "lemon", "dpmpp-3m-sde": "grapes", "dpmpp-sde": "pizza", "edm": "full moon",
    "er-sde": "cherries", "euler": "panda", "euler-a": "fox", "exp-heun": "bus", "gradient-estimation": "carrot",
    "heun": "kiwi fruit", "ipndm": "orange heart", "lcm": "pig face", "lms": "sunflower", "plms": "bear",
    "repaint": "tomato", "res-multistep": "watermelon", "sa-solver": "strawberry", "seeds-2": "purple heart",
    "seeds-3": "mushroom", "tcd": "koala", "unipc": "cactus",
}  # fmt: skip
GUIDANCES = {
    "interval-rescale": "interval(rescale, high=8)", "apg": "apg(7)", "cfg-plus-plus": "cfg++(0.6)",
    "cfg-zero": "cfg-zero", "freeu": "freeu", "mimic": "mimic", "nag": "nag", "pag": "pag", "plain": "plain",
    "ramp-threshold": "ramp(threshold)", "seg": "seg", "cfg-7": "cfg(7)", "threshold-apg": "threshold(apg(5))",
}  # fmt: skip
MORE: dict[str, list[str]] = {
    "start": ["blue heart", "--start", "{start}", "--strength", "0.7"],
    "start-weak": ["ghost", "--start", "{start}", "--strength", "0.3", "--solver", "euler-a"],
    "mask": ["green apple", "--start", "{start}", "--mask", "{mask}"],
    "mask-repaint": ["lemon", "--start", "{start}", "--mask", "{mask}", "--solver", "repaint", "--steps", "4"],
    "invert": ["blue apple", "--start", "{start}", "--invert", "red apple", "--steps", "6"],
    "outpaint": ["red apple", "--start", "{start}", "--outpaint", "right=32"],
    "outpaint-all": ["sunflower", "--start", "{start}", "--outpaint", "16", "--steps", "4"],
    "grid": ["red apple", "--grid", "steps=2,4", "--grid", "cfg-scale=1,3"],
    "grid-solvers": ["rose", "--grid", "solver=ddim(eta=0.5),dpmpp-3m,heun", "--steps", "4"],
    "weighted": ["a (red:1.6) apple"],
    "weighted-nested": ["((green)) heart, [yellow:1.2] \\(sign\\)"],
    "literal": ["a (red:1.6) apple", "--literal"],
    "batch": ["cat face", "--count", "3"],
    "strict": ["fox", "--count", "2", "--strict"],
    "negative": ["red heart", "--negative", "face", "--cfg-scale", "4"],
    "brownian": ["pizza", "--solver", "dpmpp-sde", "--noise", "brownian", "--steps", "6"],
    "karras": ["panda", "--spacing", "karras", "--steps", "8"],
    "linspace": ["crown", "--spacing", "linspace", "--steps", "8"],
    "unsteered": ["crown", "--cfg-scale", "0", "--steps", "8"],
    "accents": ["crème brûlée ☕", "--steps", "6"],
}


def pictures(folder: Path) -> tuple[Path, Path]:
    """A start and a mask of our own, drawn without any font or network."""
    start = Image.new("RGB", (160, 144), "white")
    pen = ImageDraw.Draw(start)
    pen.ellipse((24, 24, 120, 128), fill="#d22b2b")
    pen.line((72, 32, 84, 4), fill="#5b3a1a", width=6)
    pen.rectangle((120, 96, 152, 136), fill="#3355cc")
    mask = Image.new("L", start.size, 0)
    ImageDraw.Draw(mask).rectangle((80, 0, 160, 80), fill=255)
    (folder / "given").mkdir(exist_ok=True)
    start.save(folder / "given" / "start.png")
    mask.save(folder / "given" / "mask.png")
    return folder / "given" / "start.png", folder / "given" / "mask.png"


def processor() -> dict[str, str]:
    """What decides about bits: the processor, the instructions that torch uses on it, and torch's version."""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = " ".join(sorted(about.get("flags", about.get("Features", "")).split()))
    limits = [os.environ[name] for name in ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS") if name in os.environ]
    return {
        "name": " ".join(about.get(key, "") for key in ("vendor_id", "cpu family", "model", "stepping", "model name")),
        "flags": hashlib.sha256(flags.encode()).hexdigest(),
        "capability": " ".join([torch.backends.cpu.get_cpu_capability(), *limits]),
        "torch": torch.__version__,
    }


def main(folder: Path) -> None:
    start, mask = pictures(folder)
    rows = {f"solver-{name}": [SOLVERS[name], "--solver", name, "--steps", "5"] for name in index("solvers")}
    rows |= {f"guidance-{name}": ["red apple", "--guidance", g, "--steps", "5"] for name, g in GUIDANCES.items()}
    made = {}
    for number, (name, args) in enumerate((rows | MORE).items(), 1):
        args = [arg.format(start=start, mask=mask) if arg.startswith("{") else arg for arg in args]
        with tempfile.TemporaryDirectory() as scratch:
            how = ["--seed", str(number), "--threads", "1", "--dtype", "float32", "--device", "cpu", "--json"]
            command = [sys.executable, "-m", "unnoise", "generate", *args, *how, "--out", scratch]
            answer = subprocess.run(command, check=True, capture_output=True, text=True)
            paths = [Path(each["path"]) for each in json.loads(answer.stdout)["pictures"]]
            for row, path in enumerate(paths):
                file = f"{name}.png" if len(paths) == 1 else f"{name}-{row + 1}.png"
                shutil.copy(path, folder / file)
                made[file] = {name: Path(args[args.index(f"--{name}") + 1]).name for name in ("start", "mask")
                              if f"--{name}" in args}  # fmt: skip
        print(name, flush=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    record = {"drawn_by": commit, "processor": processor(), "pictures": made}
    (folder / "fixtures.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
