"""Whether the parts of a model belong together, by their configs alone: nothing is computed."""

from __future__ import annotations

from typing import Any

from torch import nn

from unnoise.core.autoencoder import Autoencoder
from unnoise.core.denoiser import Denoiser
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.errors import UnnoiseError


def check_fit(denoiser: nn.Module, autoencoder: nn.Module, text: nn.Module, tokenizer: Tokenizer, size: int) -> None:
    """Ensures that a text tower, a network and an autoencoder can draw pictures of this size together.

    Args:
        denoiser: whose network's config has ``channels_in``, ``size`` and ``text_width`` (0 takes no prompt).
        autoencoder: whose space is the network's.
        text: whose config has ``width``, ``vocabulary`` and ``end``.
        tokenizer: of the prompts.
        size: pixels of a picture along one axis.

    Raises:
        ValueError: two parts do not fit, which are named.
    """
    if not isinstance(denoiser, Denoiser):
        raise ValueError("the denoiser has no path and no prediction")
    if not isinstance(autoencoder, Autoencoder):
        raise ValueError(f"{_name(autoencoder)} is no autoencoder")
    network: Any = denoiser.network.config
    width = check_tower(text, tokenizer)
    if network.text_width:
        _equal("the text tower's width", width, "the denoiser's text_width", network.text_width)
    try:
        channels, *cells = autoencoder.space.shape(size)
    except UnnoiseError as error:
        raise ValueError(error.what) from None
    state = getattr(network, "channels_out", network.channels_in)
    _equal("the autoencoder's channels", channels, "the denoiser's channels", state)
    for side in cells:
        _equal(f"the cells of {size} pixels along one axis", side, "the denoiser's size", network.size)


def check_tower(text: nn.Module, tokenizer: Tokenizer) -> int:
    """The width of a text tower that goes with a tokenizer.

    Raises:
        ValueError: it does not.
    """
    tower: Any = text.config
    for name in ("width", "vocabulary", "end"):
        if not hasattr(tower, name):
            raise ValueError(f"{_name(text)} is no text tower: it has no {name}")
    _equal("the last id of the tokenizer", tokenizer.end, "the text tower's", tower.end)
    if tokenizer.vocabulary > tower.vocabulary:
        raise ValueError(f"the tokenizer has {tokenizer.vocabulary} ids, the text tower {tower.vocabulary}")
    return int(tower.width)


def _equal(one: str, a: Any, other: str, b: Any) -> None:
    if a != b:
        raise ValueError(f"{one}, {a}, is not {other}, {b}")


def _name(module: nn.Module) -> str:
    return str(getattr(module, "name", type(module).__name__))
