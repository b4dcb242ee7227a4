"""The refiner of Stable Diffusion XL (Podell et al. 2023, arXiv 2307.01952, section 2.5), for pictures that exist."""

from __future__ import annotations

from unnoise.weights.families import parts
from unnoise.weights.families.family import Family

FAMILY = Family(
    name="sdxl-refiner",
    title="the refiner of Stable Diffusion XL",
    pieces={
        "denoiser": parts.unet(head_width=64, size=128),
        "autoencoder": parts.autoencoder(0.13025),
        "text.clip-g": parts.clip_g("conditioner.embedders.0."),
    },
    width=1280,
    added=2560,
    marks=("conditioner.embedders.0.model.",),
    pipelines=("StableDiffusionXLImg2ImgPipeline",),
    layout={
        "tokens": [["text.clip-g"]],
        "pooled": ["text.clip-g"],
        "numbers": ["height", "width", "top", "left", "aesthetic"],
    },
    size={"": 1024},
    defaults={"steps": 50, "cfg_scale": 5.0, "solver": "euler", "spacing": "leading(1)"},
    index={
        "force_zeros_for_empty_prompt": False,
        "requires_aesthetics_score": True,
        "text_encoder": [None, None],
        "tokenizer": [None, None],
    },
)
