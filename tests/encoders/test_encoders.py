"""The text tower, the picture encoder and the pair."""

from __future__ import annotations

import pytest
import torch

from tiny import lively, tokenizer
from unnoise.core.registry import find, index
from unnoise.data.feeds import trim
from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.encoders.image_conv import ImageConv, ImageConvConfig
from unnoise.encoders.pair import Pair, PairConfig


def tower() -> CLIPText:
    torch.manual_seed(0)
    t = tokenizer()
    return lively(CLIPText(CLIPTextConfig(t.vocabulary, t.length, width=32, depth=2, heads=2, hidden=64, end=t.end)))


def test_the_tower_says_what_it_read() -> None:
    t, prompts = tokenizer(), ["red apple", "", "a dog and a cat"]
    cond = tower()(t(prompts))
    assert cond.tokens is not None
    assert cond.token_mask is not None
    assert cond.pooled is not None
    assert cond.tokens.shape == (3, t.length, 32)
    assert cond.token_mask.sum(dim=1).tolist() == [t.count(p) + 2 for p in prompts], "start, the prompt and one end"
    for row, prompt in enumerate(prompts):
        assert torch.equal(cond.pooled[row], cond.tokens[row, t.count(prompt) + 1]), "the vector of the first end"


def test_prompts_do_not_touch_one_another() -> None:
    t, text = tokenizer(), tower()
    both = text(t(["red apple", "blue heart"]))
    alone = text(t(["blue heart"]))
    assert torch.allclose(both.tokens[1:], alone.tokens, rtol=0, atol=1e-5)
    assert torch.allclose(both.pooled[1:], alone.pooled, rtol=0, atol=1e-5)


def test_the_tower_reads_forwards() -> None:
    """Causal: a token's vector does not know what follows; the prompt's vector knows all of it."""
    t, text = tokenizer(), tower()
    one, other = text(t(["red apple"])), text(t(["red heart"]))
    shared = 1 + t.count("red")
    assert torch.equal(one.tokens[:, :shared], other.tokens[:, :shared])
    assert not torch.allclose(one.pooled, other.pooled, atol=1e-3)


def test_training_leaves_out_what_lies_behind_all_ends() -> None:
    """As many columns as the longest prompt has, or up to seven more; what they hold is what all columns give."""
    t, text, prompts = tokenizer(), tower(), ["red apple", "", "a dog and a cat"]
    longest = max(t.count(p) for p in prompts) + 2
    ids = t(prompts)
    short = trim(ids, t.end)
    assert short.shape[1] == -(-longest // 8) * 8 < t.length
    whole, cut = text(ids), text(short)
    width = short.shape[1]
    assert torch.equal(cut.token_mask, whole.token_mask[:, :width])
    assert not whole.token_mask[:, longest:].any()
    assert torch.allclose(cut.tokens, whole.tokens[:, :width], rtol=0, atol=1e-5)
    assert torch.allclose(cut.pooled, whole.pooled, rtol=0, atol=1e-5)
    assert torch.equal(trim(ids[:, :longest], t.end), ids[:, :longest]), "nothing is added"


def test_pictures_become_vectors() -> None:
    torch.manual_seed(0)
    encoder = lively(ImageConv(ImageConvConfig.tiny()), 0.02)
    x = torch.rand(2, 3, 128, 128) * 2 - 1
    vectors = encoder(x)
    assert vectors.shape == (2, encoder.config.width)
    assert torch.allclose(encoder(x[1:]), vectors[1:], rtol=0, atol=1e-5)
    assert encoder(torch.rand(1, 3, 256, 96)).shape == (1, encoder.config.width), "any multiple of 16 pixels"


def test_the_pair_compares_directions() -> None:
    pair = lively(Pair(PairConfig.tiny()))
    text, image = torch.randn(3, 32), torch.randn(4, 32)
    found = pair(text, image)
    assert found.shape == (3, 4)
    assert found.abs().max() <= 1 + 1e-6
    assert torch.allclose(pair(2 * text, 5 * image), found, atol=1e-6)


@pytest.mark.parametrize("name", index("encoders"))
def test_every_encoder_has_a_config(name: str) -> None:
    """What a model folder needs of a part: a default shape, and settings that make it again."""
    cls = find("encoders", name)
    with torch.device("meta"):
        assert cls().config == cls.Config()
    first = cls(cls.Config.tiny())
    again = cls(first.config)
    assert {n: t.shape for n, t in first.state_dict().items()} == {n: t.shape for n, t in again.state_dict().items()}
    for edge in first.edges:
        assert any(n.startswith(edge) for n in first.state_dict()), f"{edge} names no weight"
