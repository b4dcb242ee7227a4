"""A training that is ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from unnoise.core.objective import Objective
from unnoise.training.settings import TrainSettings
from unnoise.training.trainer import TrainData

Modules = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Training:
    """What a recipe returns: everything that the loop needs, and what becomes of the result.

    Attributes:
        objective: what is minimised.
        data: what it is minimised on.
        settings: how.
        identity: the recipe's name and what was set; a resumed training must have the same.
        finish: the parts of a model ("autoencoder", "text", ...) from the trained roles with averaged weights.
        preview: pictures that show what such parts can do, uint8 (N, 3, H, W), drawn by the inference engine itself.
        info: what a model folder records beside the networks.
        texts: further files of a model folder, by name.
    """

    objective: Objective
    data: TrainData
    settings: TrainSettings
    identity: Mapping[str, Any]
    finish: Callable[[Modules], dict[str, nn.Module]]
    preview: Callable[[Modules], Tensor] | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
