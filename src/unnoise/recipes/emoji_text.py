from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from unnoise.core.registry import register
from unnoise.data.feeds import CaptionFeed, trained
from unnoise.data.store import open_set
from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.encoders.image_conv import ImageConv, ImageConvConfig
from unnoise.encoders.pair import Pair, PairConfig
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.errors import UnnoiseError
from unnoise.objectives.contrastive import ContrastiveObjective
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings


@register("emoji-text")
def emoji_text(
    data: Path = Path("data/emoji"),
    train: TrainSettings = TrainSettings(
        samples=24_000, batch=128, warmup=2000, cooldown=0.6, checkpoint_every=12_000, preview_every=0, averages=(0.05,)
    ),
    text: CLIPTextConfig = CLIPTextConfig(),
    image: ImageConvConfig = ImageConvConfig(),
    width: int = 256,
) -> Training:
    """The text tower, trained with an image tower so that captions and pictures find each other (CLIP).

    Args:
        data: the picture set.
        train: length and rates.
        text: shape of the text tower; ``vocabulary`` and ``length`` also shape the tokenizer.
        image: shape of the image tower.
        width: of the space that both are projected to.
    """
    pictures = open_set(data)
    items = trained(pictures, "denoiser")
    captions = [caption for i in items for caption in pictures.captions[i]]
    tokenizer = Tokenizer.train(captions, text.vocabulary, text.length)
    needed = {"vocabulary": tokenizer.bpe.get_vocab_size(), "end": tokenizer.end}
    if text.vocabulary < needed["vocabulary"] or text.end != needed["end"]:
        raise UnnoiseError(
            f"the text tower has {text.vocabulary} ids and ends at {text.end}, the tokenizer has "
            f"{needed['vocabulary']} and ends at {needed['end']}",
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

    identity = {"recipe": "emoji-text", "text": asdict(text), "image": asdict(image), "width": width}
    identity["tokenizer"] = hashlib.sha256(tokenizer.json.encode()).hexdigest()
    info = {"trained": {"text": [{"recipe": "emoji-text", "samples": train.samples, "batch": train.batch}]}}
    return Training(
        objective,
        CaptionFeed(pictures, items, tokenizer),
        train,
        identity,
        finish,
        info=info,
        texts={"tokenizer.json": tokenizer.json},
    )
