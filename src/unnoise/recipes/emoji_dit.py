from __future__ import annotations

from pathlib import Path

from unnoise.core.registry import register
from unnoise.networks.dit import DiTConfig
from unnoise.recipes.flow import FLOW_TRAIN, flow_training
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings


@register("emoji-dit")
def emoji_dit(
    data: Path = Path("data/emoji"),
    train: TrainSettings = FLOW_TRAIN,
    network: DiTConfig = DiTConfig(),
    autoencoder: Path | None = None,
    text: Path | None = None,
    init: Path | None = None,
    text_rate: float = 0.2,
    drop: float = 0.1,
    mean: float = 0.7,
    std: float = 1.2,
    prediction: str = "flow",
) -> Training:
    """emoji-flow with a diffusion transformer in the U-Net's place.

    The default shape costs what the U-Net's does, 1.5 GFLOP a call, with twice the weights. All else is emoji-flow's,
    so that the two differ in their network alone.

    Args:
        data: the picture set.
        train: length and rates.
        network: its shape.
        autoencoder, text: model folders to take these from; by default ``init``'s, or those that come with the package.
        init: a model folder whose denoiser and text tower the training starts from.
        text_rate: factor on the learning rates for the text tower; 0 keeps it fixed and caches its output.
        drop: part of the samples whose prompt is dropped.
        mean, std: of the logit of the training times.
        prediction: what the network predicts: flow (the velocity), noise, data (the picture) or v.
    """
    return flow_training(
        recipe="emoji-dit",
        data=data,
        train=train,
        network="dit",
        shape=network,
        prediction=prediction,
        autoencoder=autoencoder,
        text=text,
        init=init,
        text_rate=text_rate,
        drop=drop,
        mean=mean,
        std=std,
    )
