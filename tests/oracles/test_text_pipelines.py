"""From prompts to conditions as diffusers' pipelines make them: nothing passes between the two sides but the prompt."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from oracles.test_text_towers import CLOSE, Case, far, pair
from unnoise.core.condition import Condition
from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.encoders.vocabulary import clip_json
from unnoise.engine.conditioner import Conditioner, Layout, Tower

pytestmark = pytest.mark.slow  # whole pictures of the same pipelines are compared in test_published_pipelines

SHAPE = {"vocab_size": 49408, "hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 2}
L = Case(SHAPE)
H = Case(SHAPE, {"layer": 2}, activation="gelu")
G = Case(SHAPE | {"hidden_size": 32}, {"layer": 2, "final_norm": False}, activation="gelu", projection=20)
PROMPTS = ["a red apple", "", "Two dogs, isn't it?  (one of them) 12 café 🍎", "cat " * 75]
NUMBERS = ("height", "width", "top", "left", "target-height", "target-width")


@cache
def their_tokenizer(pad: str) -> CLIPTokenizer:
    model: dict[str, Any] = json.loads(clip_json())["model"]
    merges = [tuple(merge.split(" ")) for merge in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, pad_token=pad, model_max_length=77)


@cache
def tokenizer(pad: int | None = None) -> Tokenizer:
    return Tokenizer(clip_json(), 77, pad)


def single(text: Any, pad: str) -> Any:
    """Stable Diffusion's pipeline, with nothing in it but a text tower."""
    rest = dict.fromkeys(("vae", "unet", "scheduler", "safety_checker", "feature_extractor"))
    text.__dict__["text_model"] = text  # a level that transformers 5 has not, and diffusers asks for
    words = their_tokenizer(pad)
    return diffusers.StableDiffusionPipeline(text_encoder=text, tokenizer=words, **rest, requires_safety_checker=False)


def agree(found: Condition, tokens: Tensor, pooled: Tensor | None = None) -> None:
    assert found.tokens is not None
    assert found.token_mask is None
    assert found.tokens.shape == tokens.shape
    assert far(found.tokens, tokens) < CLOSE
    if pooled is not None:
        assert found.pooled is not None
        assert far(found.pooled, pooled) < CLOSE


@torch.inference_mode()
@pytest.mark.parametrize(("skip", "layer"), [(None, None), (1, 2), (2, 3)])
def test_stable_diffusion_1(skip: int | None, layer: int | None) -> None:
    """Their skip counts from the last layer, ours is that layer from the end: as the web interface's "Clip skip"."""
    text, tower = pair(L)
    ours = Conditioner({"text": Tower(tower, tokenizer())})
    pipe = single(text, "<|endoftext|>")
    wanted, unwanted = pipe.encode_prompt(PROMPTS, "cpu", 1, True, ["dog"] * 4, clip_skip=skip)
    _, empty = pipe.encode_prompt(PROMPTS, "cpu", 1, True, None, clip_skip=skip)
    agree(ours(PROMPTS, layer=layer), wanted)
    agree(ours(["dog"] * 4, negative=True), unwanted)  # theirs skips nothing there: difference below
    agree(ours([""] * 4, negative=True), empty)
    assert far(ours(PROMPTS, layer=4).tokens, wanted) > 100 * CLOSE, "the control"  # type: ignore[arg-type]


@torch.inference_mode()
def test_stable_diffusion_2() -> None:
    """Their folder lacks the last block; a single file has it. Rows are filled up with 0."""
    text, last = pair(replace(H, ours={"layer": 1}))
    config = CLIPTextConfig(**vars(last.config) | {"layer": 2, "cut": 1})
    short, whole = CLIPText(config).eval(), CLIPText(replace(config, depth=config.depth + 1, cut=0)).eval()
    short.load_state_dict(last.state_dict())
    whole.load_state_dict(last.state_dict(), strict=False)
    wanted, unwanted = single(text, "!").encode_prompt(PROMPTS, "cpu", 1, True, None)
    for tower in (short, whole):
        ours = Conditioner({"text": Tower(tower, tokenizer(0))})
        agree(ours(PROMPTS), wanted)
        agree(ours([""] * 4, negative=True), unwanted)
    other = Conditioner({"text": Tower(short, tokenizer())})(PROMPTS).tokens
    assert far(other, wanted) > 100 * CLOSE, "the control: another padding"  # type: ignore[arg-type]


@torch.inference_mode()
@pytest.mark.parametrize("refiner", [False, True])
def test_stable_diffusion_xl(refiner: bool) -> None:
    """Two towers side by side; the refiner has the second alone. Without a negative prompt the base takes zeros."""
    (first, one), (second, two) = pair(replace(L, ours={"layer": 2, "final_norm": False})), pair(G)
    rest = dict.fromkeys(("vae", "unet", "scheduler"))
    towers = {"l": Tower(one, tokenizer()), "g": Tower(two, tokenizer(0))}
    words = {"tokenizer": their_tokenizer("<|endoftext|>"), "text_encoder": first}
    words = dict.fromkeys(words) if refiner else words
    towers = {"g": towers["g"]} if refiner else towers
    pipe = diffusers.StableDiffusionXLPipeline(
        **words,
        text_encoder_2=second,
        tokenizer_2=their_tokenizer("!"),
        **rest,
        force_zeros_for_empty_prompt=not refiner,
        add_watermarker=False,
    )
    layout = Layout((tuple(towers),), ("g",), NUMBERS, "encoded" if refiner else "zeros")
    ours = Conditioner(towers, layout)
    for skip, layer in ((None, None), (1, 3)):
        found = pipe.encode_prompt(PROMPTS, None, "cpu", 1, True, clip_skip=skip)
        wanted, unwanted, pooled, unpooled = found
        agree(ours(PROMPTS, layer=layer), wanted, pooled)
        empty = ours([""] * 4, layer=layer, negative=True)
        if refiner:
            unwanted, _, unpooled, _ = pipe.encode_prompt([""] * 4, None, "cpu", 1, False, clip_skip=skip)
            agree(empty, unwanted, unpooled)
        else:
            for zeros in (unwanted, unpooled, empty.tokens, empty.pooled):
                assert zeros is not None
                assert not zeros.any()
        other = pipe.encode_prompt(PROMPTS, None, "cpu", 1, True, ["dog"] * 4, clip_skip=skip)
        agree(ours(["dog"] * 4, negative=True), other[1], other[3])


@torch.inference_mode()
def test_difference_clip_skip_of_negative_prompts() -> None:
    """Theirs reads a negative prompt at the model's own layer, ours at the prompt's, as the web interface does."""
    text, tower = pair(L)
    ours = Conditioner({"text": Tower(tower, tokenizer())})
    _, unwanted = single(text, "<|endoftext|>").encode_prompt(["cat"], "cpu", 1, True, ["dog"], clip_skip=1)
    skipped, _ = single(text, "<|endoftext|>").encode_prompt(["dog"], "cpu", 1, True, None, clip_skip=1)
    found = ours(["dog"], layer=2, negative=True)
    agree(found, skipped)
    assert far(found.tokens, unwanted) > 100 * CLOSE  # type: ignore[arg-type]


@pytest.mark.parametrize("aesthetic", [False, True])
def test_what_the_network_of_xl_is_told_beside_the_prompt(aesthetic: bool) -> None:
    size, crop = (96, 160), (0, 0)  # height and width
    count = 5 if aesthetic else 6
    unet = SimpleNamespace(
        config=SimpleNamespace(addition_time_embed_dim=256),
        add_embedding=SimpleNamespace(linear_1=SimpleNamespace(in_features=256 * count + 20)),
    )
    self = SimpleNamespace(config=SimpleNamespace(requires_aesthetics_score=aesthetic), unet=unet)
    told = diffusers.StableDiffusionXLImg2ImgPipeline._get_add_time_ids(
        self, size, crop, size, 6.0, 2.5, size, crop, size, torch.float32, text_encoder_projection_dim=20
    )
    names = (*NUMBERS[:4], "aesthetic") if aesthetic else NUMBERS
    _, tower = pair(G)
    ours = Conditioner({"g": Tower(tower, tokenizer(0))}, Layout((("g",),), ("g",), names))
    for negative, wanted in zip((False, True), told, strict=True):
        found = ours(["a"], size=(160, 96), negative=negative).numbers
        assert found is not None
        assert torch.equal(found, wanted)
    assert torch.equal(*told) != aesthetic
