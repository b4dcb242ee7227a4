"""Puts a finished training in the place of the model that comes with unnoise, with its card.

    python tools/install_model.py runs/default-model [--steps 30] [--solver dpmpp-2m] [--cfg-scale 3]

The settings that are named become the model's defaults for drawing.
"""

from __future__ import annotations

from pathlib import Path

import tyro

from unnoise.pipelines.load import PARTS, default_model, model_folder
from unnoise.weights.model import load_model, read_file, save_model

CARD = Path(__file__).resolve().parent.parent / "docs" / "model-card.md"
CARD_NAME = "MODEL_CARD.md"


def install(
    run: tyro.conf.Positional[Path],
    steps: int | None = None,
    solver: str | None = None,
    cfg_scale: float | None = None,
) -> None:
    """Write the default model's folder anew.

    Args:
        run: a finished training, or a model folder.
        steps, solver, cfg_scale: defaults for drawing, in place of the run's own.
    """
    folder = model_folder(run)
    modules, record = load_model(folder, PARTS)
    changes = {"steps": steps, "solver": solver, "cfg_scale": cfg_scale}
    defaults = record["defaults"] | {name: value for name, value in changes.items() if value is not None}
    info = {"name": "unnoise-emoji", "trained": record["trained"], "defaults": defaults}
    kept = [name for name in record["files"] if not name.endswith((".safetensors", CARD_NAME))]
    texts = {name: read_file(folder, record, name).decode() for name in kept}
    texts[CARD_NAME] = CARD.read_text(encoding="utf-8")
    save_model(default_model(), modules, info, texts, replace=True)
    size = sum(file.stat().st_size for file in default_model().iterdir())
    print(f"{default_model()}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    tyro.cli(install)
