"""A training that is ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unnoise.core.objective import Objective
from unnoise.training.data import Items, TrainData
from unnoise.training.settings import TrainSettings
from unnoise.training.watch import KeptBack

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
        kept_back: pictures that are not trained, and how they are looked at.
        copied: from the preview's pictures how much more than pictures kept back they single out a training picture:
            (share, low, high, count), of which 0.5 is not at all and 1 a copyist.
        notes: what a person should know before it begins, a line each.
        precision: of the model's weights, or {part: precision}.
    """

    objective: Objective
    data: TrainData | Items
    settings: TrainSettings
    identity: Mapping[str, Any]
    finish: Callable[[Modules], dict[str, nn.Module]]
    preview: Callable[[Modules], Tensor] | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    kept_back: KeptBack | None = None
    copied: Callable[[Tensor], tuple[float, float, float, int]] | None = None
    notes: Sequence[str] = ()
    precision: torch.dtype | Mapping[str, torch.dtype] = torch.bfloat16
