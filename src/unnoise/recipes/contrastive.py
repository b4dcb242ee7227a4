"""What the recipes for contrastive pairs share: a tokenizer of one's own, two towers, and what is kept of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unnoise.encoders.clip_text import CLIPText
from unnoise.encoders.clip_text_config import CLIPTextConfig
from unnoise.encoders.image_conv import ImageConv, ImageConvConfig
from unnoise.encoders.pair import Pair, PairConfig
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.errors import UnnoiseError
from unnoise.objectives.contrastive import ContrastiveObjective
from unnoise.recipes.begin import begin_from
from unnoise.recipes.latent import weights_sha256
from unnoise.training.data import Items
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings


def contrastive_training(
    *,
    recipe: str,
    captions: Iterable[str],
    feed: Callable[[Tokenizer], Items],
    train: TrainSettings,
    text: CLIPTextConfig,
    image: ImageConvConfig,
    width: int,
    init: Path | None,
    part: str,
    info: Mapping[str, Any],
) -> Training:
    """A training of a text tower with an image tower; see the recipes for what each argument means.

    Args:
        captions: what the tokenizer is trained on.
        feed: makes the training's data with it.
        part: the pair's name in the folder's record of how it was trained.

    Raises:
        UnnoiseError: the text tower's ids are not the tokenizer's, or ``init`` is another kind of pair.
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
        ImageConv(image).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        Pair(PairConfig(text.width, image.width, width)),
    )

    pair = {"text": objective.text, "image": objective.image, "pair": objective.pair}
    before = begin_from(init, pair, part, tokenizer.json) if init else []

    def finish(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        return {"text": modules["text"], "image": modules["image"], "pair": modules["pair"]}

    identity: dict[str, Any] = {"recipe": recipe, "text": text, "image": image, "width": width}
    identity["tokenizer"] = hashlib.sha256(tokenizer.json.encode()).hexdigest()
    if init:
        identity["init"] = {name: weights_sha256(module) for name, module in pair.items()}
    now = {"recipe": recipe, **train.length(), "batch": train.batch}
    record = {**info, "trained": {part: [*before, now]}}
    texts = {"tokenizer.json": tokenizer.json}
    return Training(objective, feed(tokenizer), train, identity, finish, info=record, texts=texts)
