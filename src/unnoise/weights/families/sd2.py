"""Stable Diffusion 2.0 and 2.1, both predictions, and its inpainting variant.

The file does not say whether the network predicts noise (the base models, 512 pixels) or v (768 pixels).
"""

from __future__ import annotations

from unnoise.weights.families import parts
from unnoise.weights.families.family import Family

FAMILY = Family(
    name="sd2",
    title="Stable Diffusion 2",
    pieces={
        "denoiser": parts.unet(head_width=64),
        "autoencoder": parts.autoencoder(0.18215),
        # the last of its 24 blocks is not used, and not in diffusers' folders
        "text.clip-h": parts.openclip("text_encoder", "h", "cond_stage_model.", layer=2, cut=1),
    },
    width=1024,
    added=0,
    marks=("cond_stage_model.model.",),
    pipelines=("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"),
    prediction=None,
    layout={"tokens": [["text.clip-h"]], "pooled": []},
    size={"": 512, "v": 768},
    defaults={"steps": 50, "cfg_scale": 7.5, "solver": "plms", "spacing": "leading(1, end=first)"},
    index={"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False},
    alike="SD-Turbo looks the same; draw it with --steps 1 to 4 --cfg-scale 1 --spacing trailing",
)
