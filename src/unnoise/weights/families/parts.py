"""The parts that families of Stable Diffusion share, each with its key tables and what files do not tell of it."""

from __future__ import annotations

from typing import Any

from unnoise.weights.families.family import Piece

UNET = {"original": "out.0.weight", "diffusers": "conv_norm_out.weight"}  # the end, which control networks lack
LDM = {"original": "decoder.mid.block_1.norm1.weight", "diffusers": "decoder.mid_block.resnets.0.norm1.weight"}
CLIP = {"transformers": "text_model.embeddings.token_embedding.weight", "openclip": "token_embedding.weight"}
UNET_PREFIXES = tuple(
    (prefix, layout)
    for layout in UNET
    for prefix in ("model.diffusion_model.", "model.model.", "diffusion_model.", "unet.", "net.", "")
)
TINY = {  # of its decoder
    "diffusers": "decoder.layers.0.bias",
    "sd.cpp": "decoder.1.bias",
    "comfyui": "taesd_decoder.1.bias",
    "taesd": "1.bias",
}
LONGEST = 64  # rows of 75 tokens that a prompt may be cut into: more than its letters can fill
TOWER = {"masked": False, "chunks": LONGEST}


def unet(**hints: Any) -> Piece:
    """The U-Net; ``hints`` say what its shapes do not: its heads, and the size that it was trained at, in cells."""
    size = {"size": hints.pop("size")} if "size" in hints else {}
    library = ("diffusers", "UNet2DConditionModel")
    return Piece("networks", "sd-unet", "sd_unet", "unet", UNET_PREFIXES, UNET, library, hints={**hints, **size})


def autoencoder(scale: float) -> Piece:
    """The autoencoder, whose latents are multiplied by ``scale``."""
    prefixes = tuple((prefix, layout) for layout in LDM for prefix in ("first_stage_model.", "vae.", ""))
    library = ("diffusers", "AutoencoderKL")
    return Piece("autoencoders", "ldm", "ldm", "vae", prefixes, LDM, library, hints={"scale": scale})


def tiny() -> Piece:
    """A tiny autoencoder that has a decoder: a part of no family, which any model of its latents may have beside."""
    places = [("", "diffusers"), ("", "sd.cpp"), ("first_stage_model.", "sd.cpp"), ("tae.", "sd.cpp")]
    prefixes = (*places, ("", "comfyui"), ("", "taesd"))
    return Piece("autoencoders", "taesd", "taesd", "vae", prefixes, TINY, ("diffusers", "AutoencoderTiny"))


def clip_l(folder: str, *prefixes: str, **settings: Any) -> Piece:
    """OpenAI's CLIP ViT-L/14, under transformers' names wherever it lies."""
    places = tuple((f"{prefix}transformer.", "transformers") for prefix in prefixes)
    places += (("text_encoders.clip_l.transformer.", "transformers"), ("", "transformers"))
    hints = {"activation": "quick_gelu"}
    library = ("transformers", "CLIPTextModel")
    return Piece("encoders", "clip-text", "clip", folder, places, CLIP, library, {**TOWER, **settings}, hints)


def openclip(
    folder: str, letter: str, *prefixes: str, library: str = "CLIPTextModel", cut: int = 0, **settings: Any
) -> Piece:
    """OpenCLIP's ViT-H/14 or bigG/14, under its own names in single files. Rows are filled up with 0."""
    places = tuple((f"{prefix}model.", "openclip") for prefix in prefixes)
    places += ((f"text_encoders.clip_{letter}.transformer.", "transformers"), ("model.", "openclip"))
    places += (("", "openclip"), ("", "transformers"))
    own = {**TOWER, "pad": 0, **settings}
    hints = {"activation": "gelu"}
    return Piece("encoders", "clip-text", "clip", folder, places, CLIP, ("transformers", library), own, hints, cut)


def clip_g(prefix: str) -> Piece:
    """OpenCLIP's ViT-bigG/14 as SDXL and its refiner read it: the last block but one, without the norm behind it."""
    library = "CLIPTextModelWithProjection"
    return openclip("text_encoder_2", "g", prefix, library=library, layer=2, final_norm=False)
