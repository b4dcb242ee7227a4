from __future__ import annotations

from pathlib import Path

from unnoise.autoencoders.folded import Folded
from unnoise.core.registry import register
from unnoise.networks.unet import UNetConfig
from unnoise.recipes.flow import FLOW_TRAIN, flow_training
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings


@register("emoji-pixels")
def emoji_pixels(
    data: Path = Path("data/emoji"),
    train: TrainSettings = FLOW_TRAIN,
    network: UNetConfig = UNetConfig(channels_in=192),
    text: Path | None = None,
    init: Path | None = None,
    text_rate: float = 0.2,
    drop: float = 0.1,
    mean: float = 0.7,
    std: float = 1.2,
    prediction: str = "data",
) -> Training:
    """emoji-flow on the pixels themselves, folded 8 x 8 into channels, with no autoencoder to learn.

    The network predicts the picture. A cell holds 192 numbers and passes through 128 channels: pictures fit, since they
    fill few of their dimensions, and noise, which fills all of them, does not; a velocity holds that noise. Li and He
    2025 (arXiv 2511.13720), section 3.

    Args:
        data: the picture set.
        train: length and rates.
        network: its shape.
        text: a model folder to take the text tower from; by default ``init``'s, or the one that comes with the package.
        init: a model folder whose parts the training starts from.
        text_rate: factor on the learning rates for the text tower; 0 keeps it fixed and caches its output.
        drop: part of the samples whose prompt is dropped.
        mean, std: of the logit of the training times.
        prediction: what the network predicts: data (the picture), flow (the velocity), noise or v.
    """
    return flow_training(
        recipe="emoji-pixels",
        data=data,
        train=train,
        network="unet",
        shape=network,
        prediction=prediction,
        autoencoder=None if init else Folded().measure,
        text=text,
        init=init,
        text_rate=text_rate,
        drop=drop,
        mean=mean,
        std=std,
    )
