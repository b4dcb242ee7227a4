"""What the recipes on the flow's path share: one loss for whatever the network predicts, and how such a model draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from unnoise.core.autoencoder import Autoencoder
from unnoise.core.prediction import Prediction
from unnoise.core.registry import find
from unnoise.data.store import open_set
from unnoise.errors import UnnoiseError
from unnoise.objectives.times import LogitNormal
from unnoise.objectives.weightings import VelocityWeight
from unnoise.paths.flow import Flow
from unnoise.recipes.latent import latent_training
from unnoise.recipes.terms import Terms
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings

# among the nearest to a run of 1,000 steps from ten calls on (docs/benchmarks.md); the default model's ten steps at
# scale 2 were chosen for its own weights
FLOW_DEFAULTS: dict[str, Any] = {"steps": 20, "solver": "dpmpp-2m", "spacing": "beta", "cfg_scale": 3.0}
SHORT_OF_NOISE = "karras(sigma_max=80)"  # alpha is 1/81 at its start
FLOW_TRAIN = TrainSettings(samples=480_000, batch=64, warmup=4000, cooldown=0.4)


def flow_training(
    *,
    recipe: str,
    data: Path,
    train: TrainSettings,
    network: str,
    shape: Any,
    prediction: str,
    autoencoder: Path | Callable[[Tensor], Autoencoder] | None,
    text: Path | None,
    init: Path | None,
    text_rate: float,
    drop: float,
    mean: float,
    std: float,
    terms: Terms = Terms(),
) -> Training:
    """A denoiser on the flow's path, by whichever recipe; see ``emoji_flow`` for what each argument means.

    Args:
        network, shape: its name in the registry, and its config.

    Raises:
        UnnoiseError: no prediction has that name, or what ``latent_training`` refuses.
    """
    method = find("predictions", prediction)()
    choice = {} if method.name == "flow" else {"prediction": method.name}  # trainings from before there was one go on
    return latent_training(
        recipe=recipe,
        pictures=open_set(data),
        train=train,
        network=network,
        shape=shape,
        path=Flow(),
        prediction=method,
        noise_label="time",
        times=LogitNormal(mean, std),
        weighting=VelocityWeight(),
        terms=terms,
        autoencoder=autoencoder,
        text=text,
        init=init,
        text_rate=text_rate,
        drop=drop,
        settings={"mean": mean, "std": std, **choice},
        defaults=FLOW_DEFAULTS if begins_at_noise(method) else {**FLOW_DEFAULTS, "spacing": SHORT_OF_NOISE},
    )


def begins_at_noise(prediction: Prediction) -> bool:
    """Whether a run can begin where the signal is nil: predicted noise holds nothing of a picture there."""
    try:
        prediction.check(Flow().at(1.0))
    except UnnoiseError:
        return False
    return True
