from __future__ import annotations

from pathlib import Path

from unnoise.core.registry import register
from unnoise.networks.unet import UNetConfig
from unnoise.recipes.flow import FLOW_TRAIN, flow_training
from unnoise.recipes.terms import Terms
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings


@register("emoji-flow")
def emoji_flow(
    data: Path = Path("data/emoji"),
    train: TrainSettings = FLOW_TRAIN,
    network: UNetConfig = UNetConfig(),
    autoencoder: Path | None = None,
    text: Path | None = None,
    init: Path | None = None,
    text_rate: float = 0.2,
    drop: float = 0.1,
    mean: float = 0.7,
    std: float = 1.2,
    prediction: str = "flow",
    contrast: float = 0.0,
    feedback: float = Terms.feedback,
    uncertainty: int = 0,
) -> Training:
    """A rectified-flow denoiser: a straight path, the velocity, logit-normal times.

    Times lean toward noise. What a thing looks like as a whole is settled above t = 0.88, where Esser et al. 2024
    (arXiv 2403.03206), with mean 0 and std 1, put one sample in forty: too few to learn two thousand things by heart.

    Whatever the network predicts, the loss is the squared error of the velocity (`velocity-weight`), so that
    predictions are compared under one loss. Predicted noise holds nothing where the signal is nil: such a model draws
    from sigma/alpha = 80 on.

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
        contrast: weight of contrastive flow matching, 0.05 in the paper; 0 for none.
        feedback: share of the steps in which the network is shown its own estimate, with --network.self-conditioning.
        uncertainty: features of a weight of levels that is learnt, 128 in EDM2; 0 for none.
    """
    return flow_training(
        recipe="emoji-flow",
        data=data,
        train=train,
        network="unet",
        shape=network,
        prediction=prediction,
        autoencoder=autoencoder,
        text=text,
        init=init,
        text_rate=text_rate,
        drop=drop,
        mean=mean,
        std=std,
        terms=Terms(contrast=contrast, feedback=feedback, uncertainty=uncertainty),
    )
