from __future__ import annotations

from pathlib import Path

from unnoise.core.registry import register
from unnoise.data.feeds import CaptionFeed, trained
from unnoise.data.store import open_set
from unnoise.encoders.clip_text_config import CLIPTextConfig
from unnoise.encoders.image_conv import ImageConvConfig
from unnoise.errors import UnnoiseError
from unnoise.recipes.contrastive import contrastive_training
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
    init: Path | None = None,
) -> Training:
    """The text tower, trained with an image tower so that captions and pictures find each other (CLIP).

    Args:
        data: the picture set.
        train: length and rates.
        text: shape of the text tower; ``vocabulary`` and ``length`` also shape the tokenizer.
        image: shape of the image tower.
        width: of the space that both are projected to.
        init: a folder trained by emoji-text that the training starts from.
    """
    pictures = open_set(data)
    items = trained(pictures, "denoiser")
    captions = [caption for i in items for caption in pictures.captions[i]]
    if not any(captions):
        raise UnnoiseError(
            f"the pictures at {pictures.path} have no captions to learn from", "write some, one a picture"
        )
    return contrastive_training(
        recipe="emoji-text",
        captions=captions,
        feed=lambda tokenizer: CaptionFeed(pictures, items, tokenizer),
        train=train,
        text=text,
        image=image,
        width=width,
        init=init,
        part="text",
        info={},
    )
