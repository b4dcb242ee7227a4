"""What pictures of other tools say of how they were made: real ones, and forms of each tool made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unnoise.pipelines.readers.read import read_settings

OTHERS = Path(__file__).resolve().parent.parent / "fixtures" / "others"
DUCK = {"prompt": "photo of a duck", "negative": "monochrome", "steps": 15, "sampler": "UniPC", "schedule": None,
        "cfg_scale": 5.0, "seed": 235284042, "size": (512, 400), "strength": None}  # fmt: skip
REAL: dict[str, dict[str, Any]] = {
    "a1111_1x1.png": DUCK | {"tool": "AUTOMATIC1111 or a tool that writes as it does"},
    "a1111.jpg": DUCK,
    "a1111_stealth_alpha.png": {"tool": "AUTOMATIC1111", "prompt": "a circle", "negative": "a square", "steps": 20,
                                "sampler": "Euler", "schedule": "Automatic", "cfg_scale": 7.0, "seed": 2015833630,
                                "size": (64, 64)},
    "comfyui_img2img_1x1.png": {"tool": "ComfyUI", "negative": "watermark, text", "steps": 20, "schedule": "normal",
                                "prompt": "photograph of victorian woman with wings, sky clouds, meadow grass",
                                "sampler": "sample_dpmpp_2m", "cfg_scale": 8.0, "seed": 280823642470253,
                                "strength": 0.8700000000000001, "size": None},
    "fooocus_1x1.png": {"tool": "Fooocus", "prompt": "a smiling goldfish", "negative": "", "steps": 30,
                        "sampler": "dpmpp_2m_sde_gpu", "schedule": "karras", "cfg_scale": 4.0,
                        "seed": 6952411511246973023, "size": (768, 1280)},
    "invokeai_sdmeta_dream_1x1.png": {"tool": "InvokeAI", "negative": "rendering, glowing eyes, skinny", "steps": 50,
                                      "sampler": "k_lms", "cfg_scale": 5.0, "seed": 2980747362, "size": (512, 768)},
    "novelai_v1_1x1.png": {"tool": "NovelAI", "prompt": "masterpiece, best quality,  cat, space, icon", "steps": 50,
                           "sampler": "k_euler_ancestral", "cfg_scale": 10.0, "seed": 2253955223, "literal": True},
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_pictures(name: str) -> None:
    found = read_settings(OTHERS / name)
    assert found is not None
    assert {field: getattr(found, field) for field in REAL[name]} == REAL[name]


def test_every_real_picture_is_tried() -> None:
    assert {path.name for path in OTHERS.iterdir() if path.is_file()} - {"README.md"} == set(REAL)
