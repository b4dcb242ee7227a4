from __future__ import annotations

from pathlib import Path

from unnoise.core.registry import register
from unnoise.data.store import open_set
from unnoise.networks.unet import UNetConfig
from unnoise.objectives.times import Uniform as UniformTimes
from unnoise.objectives.weightings import Uniform
from unnoise.paths.cosine import Cosine
from unnoise.predictions.noise import Noise
from unnoise.recipes.latent import latent_training
from unnoise.recipes.terms import Terms
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings


@register("emoji-ddpm")
def emoji_ddpm(
    data: Path = Path("data/emoji"),
    train: TrainSettings = TrainSettings(samples=480_000, batch=64, warmup=4000, cooldown=0.4),
    network: UNetConfig = UNetConfig(),
    autoencoder: Path | None = None,
    text: Path | None = None,
    init: Path | None = None,
    text_rate: float = 0.2,
    drop: float = 0.1,
    bound: float = Terms.bound,
    feedback: float = Terms.feedback,
    uncertainty: int = 0,
) -> Training:
    """The classic: 1000 levels on the cosine path, the noise predicted, its squared error unweighted.

    DDPM (arXiv 2006.11239), algorithm 1, with Improved DDPM's path (arXiv 2102.09672), in an autoencoder's latents.
    It draws with DDIM's own leading spacing: at the cosine path's last level alpha is 5e-5, and a step from there over
    many levels multiplies any error of the predicted noise by hundreds.

    Args:
        data: the picture set.
        train: length and rates.
        network: its shape.
        autoencoder, text: model folders to take these from; by default ``init``'s, or those that come with the package.
        init: a model folder whose denoiser and text tower the training starts from.
        text_rate: factor on the learning rates for the text tower; 0 keeps it fixed and caches its output.
        drop: part of the samples whose prompt is dropped.
        bound: weight of the bound that trains the variance, with --network.learned-variance.
        feedback: share of the steps in which the network is shown its own estimate, with --network.self-conditioning.
        uncertainty: features of a weight of levels that is learnt, 128 in EDM2; 0 for none.
    """
    return latent_training(
        recipe="emoji-ddpm",
        pictures=open_set(data),
        train=train,
        network="unet",
        shape=network,
        path=Cosine(),
        prediction=Noise(),
        noise_label="index",
        times=UniformTimes(),
        weighting=Uniform(),
        terms=Terms(bound=bound, feedback=feedback, uncertainty=uncertainty),
        autoencoder=autoencoder,
        text=text,
        init=init,
        text_rate=text_rate,
        drop=drop,
        settings={},
        defaults={"steps": 50, "solver": "ddim", "spacing": "leading", "cfg_scale": 3.0},
    )
