"""The role of a file of weights: its kind, its model family and the parts in it, by its header."""

from __future__ import annotations

import re

from unnoise.weights.families.family import families
from unnoise.weights.header import Header
from unnoise.weights.kinds import kind_of_tensors
from unnoise.weights.shapes import size

CHECKPOINT, DENOISER, AUTOENCODER, TINY = "checkpoint", "denoiser", "autoencoder", "tiny autoencoder"
TEXT, ADAPTER, OTHER, PICKLE, BROKEN = "text encoder", "adapter", "other", "pickle", "broken"
KINDS = (CHECKPOINT, DENOISER, AUTOENCODER, TINY, TEXT, ADAPTER, OTHER, PICKLE, BROKEN)
UNDECIDED = "sd1 or sdxl"  # of autoencoders with four channels, which no tensor tells apart
CHANNELS = {4: UNDECIDED, 16: "sd3 or flux1", 32: "flux2"}
WIDTHS = {768: "clip-l", 1024: "clip-h", 1280: "clip-g", 4096: "t5-xxl"}
OTHERS = (  # (family that cannot be drawn with, what a finding's words hold)
    ("sd3", "Stable Diffusion 3"), ("flux1", r"Flux\.1"),
    ("flux2", r"Flux\.2"), ("flux3", r"Flux\.3"), ("chroma", "Chroma"), ("qwen-image", "Qwen-Image"),
    ("hidream", "HiDream"), ("krea2", "Krea 2"), ("ernie", "ERNIE"), ("z-image", "Z-Image"), ("lumina2", "Lumina 2"),
    ("pixart", "PixArt"), ("sana", "SANA"), ("hunyuandit", "HunyuanDiT"), ("wan", r"\bWan\b"), ("anima", "Anima"),
)  # fmt: skip
FAMILIES = (  # the most special first: a refiner's title holds its base's
    ("unnoise", "unnoise"),
    *sorted(((each.name, each.title) for each in families().values()), key=lambda pair: -len(pair[1])),
    *OTHERS,
)
ROLES = (  # (kind, what a finding's words hold), the most special first
    (CHECKPOINT, r"one file|^an unnoise model"), (TINY, "a tiny autoencoder"), (AUTOENCODER, r"^an autoencoder"),
    (ADAPTER, r"^an adapter"),
    (OTHER, r"Adapter|Control|control network|motion modules|upscaler|image encoder$|inversion|optimiser|unnoise"),
    (TEXT, "text encoder|text and image encoders|language model"),
    (DENOISER, "U-Net alone|denoiser|" + "|".join(pattern for _, pattern in OTHERS)),
)  # fmt: skip
PARTS = (  # (part, beginnings of its tensors' names in a checkpoint)
    ("denoiser", r"model\.diffusion_model\."),
    ("autoencoder", r"(first_stage_model|vae)\."),
    ("text.clip-l", r"(cond_stage_model\.transformer|conditioner\.embedders\.0\.transformer|text_encoders\.clip_l)\."),
    ("text.clip-h", r"cond_stage_model\.model\."),
    ("text.clip-g", r"(conditioner\.embedders\.[01]\.model|text_encoders\.clip_g)\."),
)
SCALES = {0.18215: "sd1", 0.13025: "sdxl"}  # of latents, by the ``scaling_factor`` of diffusers' config.json


def family_of(header: Header) -> tuple[str, str]:
    """(kind, one of ``KINDS``; family, such as "sdxl", "clip-l" or "sd1 or sdxl", or "" where nothing tells it)."""
    finding = kind_of_tensors(header.tensors, header.metadata)
    return role(finding.what, header)


def role(what: str, header: Header) -> tuple[str, str]:
    """The same, by the words of ``kind_of_tensors`` for what it is."""
    kind = next((kind for kind, pattern in ROLES if re.search(pattern, what)), OTHER)
    if kind == TEXT:
        width = size(header.tensors, r"token_embedding\.weight$|(shared|embed_tokens|token_embd)\.weight$", -1)
        return kind, WIDTHS.get(width or 0, "") if "CLIP" in what or "T5" in what else ""
    if kind in (AUTOENCODER, TINY):
        channels = size(header.tensors, r"decoder\.conv_in\.weight$|decoder\.(layers\.0|1)\.weight$|^1\.weight$", 1)
        return kind, CHANNELS.get(channels or 0, "")
    return kind, next((family for family, pattern in FAMILIES if re.search(pattern, what)), "")


def parts_of(header: Header) -> tuple[str, ...]:
    """The parts that lie in a checkpoint of one file, by the beginnings of its tensors' names."""
    return tuple(part for part, pattern in PARTS if any(re.match(pattern, name) for name in header.tensors))
