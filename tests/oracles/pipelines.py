"""Small pipelines of diffusers with random weights, in folders as their users save them."""

from __future__ import annotations

import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from small_models import random_weights
from unnoise.encoders.vocabulary import clip_json

TABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SD = {**TABLE, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "clip_sample": False}
XL = {**SD, "timestep_spacing": "leading"}
PLAIN, CROSS = ("DownBlock2D", "UpBlock2D"), ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")


def unet(levels: tuple[int, ...], width: int, **more: Any) -> Any:
    """A U-Net whose first levels attend to the prompt, or in XL's order the last; heads are 8 or 64 wide."""
    crossed = more.pop("crossed", [True] * (len(levels) - 1) + [False])
    kinds = [CROSS if each else PLAIN for each in crossed]
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=levels,
        down_block_types=tuple(kind[0] for kind in kinds),
        up_block_types=tuple(kind[1] for kind in reversed(kinds)),
        cross_attention_dim=width,
        layers_per_block=1,
        **more,
    )


def autoencoder(scale: float) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        scaling_factor=scale,
        sample_size=64,
    )


def tower(width: int, depth: int, kind: Any = CLIPTextModel, **more: Any) -> Any:
    """CLIP's text tower, with heads 64 wide; ``pad_token_id`` in files says nothing of how rows are filled."""
    ids = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
    heads = {"num_attention_heads": max(1, width // 64), "num_hidden_layers": depth}
    return kind(CLIPTextConfig(hidden_size=width, intermediate_size=2 * width, **heads, **ids, **more))


@cache
def tokenizer(pad: str = "<|endoftext|>") -> Any:
    model: dict[str, Any] = json.loads(clip_json())["model"]
    merges = [tuple(merge.split(" ")) for merge in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, pad_token=pad, model_max_length=77)


def single(two: bool = False, channels: int = 4, cls: Any = None, **more: Any) -> Any:
    """Stable Diffusion 1, or 2 where ``two``."""
    kind = cls or diffusers.StableDiffusionPipeline
    if two:
        network = unet((64, 128), 64, in_channels=channels, attention_head_dim=[1, 2], use_linear_projection=True)
        text, pad = tower(64, 3, hidden_act="gelu"), "!"  # of four blocks, as a folder has them
    else:
        network = unet((32, 64), 64, in_channels=channels, attention_head_dim=8, **more)
        text, pad = tower(64, 2), "<|endoftext|>"
    return kind(
        vae=random_weights(autoencoder(0.18215), 1),
        text_encoder=random_weights(text, 2),
        tokenizer=tokenizer(pad),
        unet=random_weights(network, 3),
        scheduler=diffusers.PNDMScheduler.from_config(SD),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def large(refiner: bool = False, channels: int = 4, cls: Any = None) -> Any:
    """Stable Diffusion XL, or its refiner."""
    kind = cls or (diffusers.StableDiffusionXLImg2ImgPipeline if refiner else diffusers.StableDiffusionXLPipeline)
    second = tower(128, 3, CLIPTextModelWithProjection, hidden_act="gelu", projection_dim=128)
    width = 128 if refiner else 192
    network = unet(
        (64, 128),
        width,
        crossed=[False, True],
        in_channels=channels,
        attention_head_dim=[1, 2],
        use_linear_projection=True,
        transformer_layers_per_block=[1, 2],
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=128 + (5 if refiner else 6) * 256,
    )
    first = None if refiner else random_weights(tower(64, 3), 2)
    more = {"requires_aesthetics_score": refiner} if "Img2Img" in kind.__name__ or "Inpaint" in kind.__name__ else {}
    return kind(
        vae=random_weights(autoencoder(0.13025), 1),
        text_encoder=first,
        tokenizer=None if refiner else tokenizer(),
        text_encoder_2=random_weights(second, 4),
        tokenizer_2=tokenizer("!"),
        unet=random_weights(network, 3),
        scheduler=diffusers.EulerDiscreteScheduler.from_config(XL),
        force_zeros_for_empty_prompt=not refiner,
        add_watermarker=False,
        **more,
    )


def varied(folder: Path, name: str, scheduler: Any) -> Path:
    """The folder beside it that differs in its scheduler alone; weights are not copied."""
    other = folder.with_name(name)
    shutil.copytree(folder, other, copy_function=os.link, ignore=shutil.ignore_patterns("scheduler"))
    scheduler.save_pretrained(other / "scheduler")
    return other
