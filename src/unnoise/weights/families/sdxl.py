"""Stable Diffusion XL (Podell et al. 2023, arXiv 2307.01952): base, inpainting and v variants, and LCMs."""

from __future__ import annotations

from unnoise.weights.families import parts
from unnoise.weights.families.family import Family

NUMBERS = ["height", "width", "top", "left", "target-height", "target-width"]
FAMILY = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    pieces={
        "denoiser": parts.unet(head_width=64, size=128),
        "autoencoder": parts.autoencoder(0.13025),
        "text.clip-l": parts.clip_l("text_encoder", "conditioner.embedders.0.", layer=2, final_norm=False),
        "text.clip-g": parts.clip_g("conditioner.embedders.1."),
    },
    width=2048,
    added=2816,
    marks=("conditioner.embedders.1.",),
    pipelines=("StableDiffusionXLPipeline", "StableDiffusionXLInpaintPipeline"),
    layout={
        "tokens": [["text.clip-l", "text.clip-g"]],
        "pooled": ["text.clip-g"],
        "numbers": NUMBERS,
        "empty": "zeros",
    },
    size={"": 1024},
    defaults={"steps": 50, "cfg_scale": 5.0, "solver": "euler", "spacing": "leading(1)"},
    marks_v=True,
    index={"force_zeros_for_empty_prompt": True},
    alike="Turbo, Lightning and Hyper look the same; draw them with --steps 1 to 8 --cfg-scale 1 --spacing trailing",
)
