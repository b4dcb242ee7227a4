"""What the recipes for contrastive pairs share: a tokenizer of one's own, two towers, and what is kept of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.encoders.image_conv import ImageConv, ImageConvConfig
from unnoise.encoders.pair import Pair, PairConfig
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.errors import UnnoiseError
from unnoise.objectives.contrastive import ContrastiveObjective
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings
from unnoise.training.trainer import TrainData


def contrastive_training(
    *,
    recipe: str,
    captions: Iterable[str],
    feed: Callable[[Tokenizer], TrainData],
    train: TrainSettings,
    text: CLIPTextConfig,
    image: ImageConvConfig,
    width: int,
    info: Mapping[str, Any],
) -> Training:
    """A training of a text tower with an image tower; see the recipes for what each argument means.

    Args:
        captions: what the tokenizer is trained on.
        feed: makes the training's data with it.

    Raises:
        UnnoiseError: the text tower's ids are not the tokenizer's.
    """
    tokenizer = Tokenizer.train(captions, text.vocabulary, text.length)
    if text.vocabulary < tokenizer.vocabulary or text.end != tokenizer.end:
        raise UnnoiseError(
            f"the text tower has {text.vocabulary} ids and ends at {text.end}, the tokenizer has "
            f"{tokenizer.vocabulary} and ends at {tokenizer.end}",
            "set text.vocabulary and text.end to these",
        )
    torch.manual_seed(train.seed)
    objective = ContrastiveObjective(
        CLIPText(text),
        ImageConv(image).to(memory_format=torch.channels_last),
        Pair(PairConfig(text.width, image.width, width)),
    )

    def finish(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        return {"text": modules["text"], "image": modules["image"], "pair": modules["pair"]}

    identity = {"recipe": recipe, "text": asdict(text), "image": asdict(image), "width": width}
    identity["tokenizer"] = hashlib.sha256(tokenizer.json.encode()).hexdigest()
    texts = {"tokenizer.json": tokenizer.json}
    return Training(objective, feed(tokenizer), train, identity, finish, info=dict(info), texts=texts)
