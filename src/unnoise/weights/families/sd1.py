"""Stable Diffusion 1.1 to 1.5 (Rombach et al. 2022, arXiv 2112.10752), its inpainting variant, and LCMs made of it."""

from __future__ import annotations

from unnoise.weights.families import parts
from unnoise.weights.families.family import Family

FAMILY = Family(
    name="sd1",
    title="Stable Diffusion 1",
    pieces={
        "denoiser": parts.unet(heads=8, size=64),
        "autoencoder": parts.autoencoder(0.18215),
        "text.clip-l": parts.clip_l("text_encoder", "cond_stage_model."),
    },
    width=768,
    added=0,
    marks=("cond_stage_model.transformer.",),
    pipelines=("StableDiffusionPipeline", "StableDiffusionInpaintPipeline", "LatentConsistencyModelPipeline"),
    layout={"tokens": [["text.clip-l"]], "pooled": []},
    size={"": 512},
    defaults={"steps": 50, "cfg_scale": 7.5, "solver": "plms", "spacing": "leading(1, end=first)"},
    index={"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False},
)
