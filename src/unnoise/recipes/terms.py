"""What the trainings of denoisers may add to the squared error, and what their data and their records need for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from unnoise.core.objective import Batch, Draws
from unnoise.data.feeds import LatentFeed
from unnoise.errors import UnnoiseError
from unnoise.objectives.contrast import Contrast
from unnoise.objectives.self_conditioning import USUAL as FEEDBACK
from unnoise.objectives.self_conditioning import SelfConditioning
from unnoise.objectives.uncertainty import Uncertainty
from unnoise.objectives.variational_bound import USUAL as BOUND
from unnoise.objectives.variational_bound import VariationalBound
from unnoise.weights.parts import describe


@dataclass(frozen=True)
class Terms:
    """What a training may add to the squared error; see ``DenoisingObjective``.

    Attributes:
        bound: weight of the bound, for networks with learned variance.
        feedback: share of the steps in which a network with self-conditioning is shown its own estimate.
        uncertainty: features of the learned weight; 0 for none.
        contrast: weight of contrastive flow matching; 0 for none.
    """

    bound: float = BOUND
    feedback: float = FEEDBACK
    uncertainty: int = 0
    contrast: float = 0.0

    def options(self, network: Any) -> dict[str, Any]:
        """The objective's settings that these mean for a network of that config.

        Raises:
            UnnoiseError: a number that makes no sense, or that is set for something the network does not have.
        """
        for name, usual, has in (("bound", BOUND, "learned_variance"), ("feedback", FEEDBACK, "self_conditioning")):
            if getattr(self, name) != usual and not getattr(network, has, False):
                flag = has.replace("_", "-")
                raise UnnoiseError(f"{name} is set for a network without {flag}", f"add --network.{flag}")
        return {
            "bound": VariationalBound(self.bound) if getattr(network, "learned_variance", False) else None,
            "feedback": SelfConditioning(self.feedback) if getattr(network, "self_conditioning", False) else None,
            "uncertainty": Uncertainty(self.uncertainty) if self.uncertainty else None,
            "contrast": Contrast(self.contrast) if self.contrast else None,
        }

    def identity(self) -> dict[str, float]:
        """What is not as usual, by name."""
        return {name: value for name, value in asdict(self).items() if value != getattr(Terms(), name)}


class WithOthers:
    """Batches that also bring "other" (B, C, h, w): for each row another sample's latents, drawn as samples are.

    A function of (seed, step, sample), so that how a batch is split changes nothing; never the row's own sample.
    """

    def __init__(self, feed: LatentFeed) -> None:
        self.feed, self.identity, self.weights = feed, feed.identity, feed.weights
        self._ends = torch.cumsum(feed.weights.double(), 0)

    def batch(self, items: Tensor, draws: Draws) -> Batch:
        """The feed's batch and the others."""
        count = len(self._ends)
        others = torch.searchsorted(self._ends, draws.on("cpu").uniform("other") * self._ends[-1]).clamp(max=count - 1)
        others = torch.where(others == items, (others + 1) % count, others)
        return {**self.feed.batch(items, draws), "other": self.feed.latents(others, draws, "other latent")}


def lasting(module: nn.Module) -> dict[str, Any]:
    """What describes a component in hashes that last: without its switches that are off, and without the settings that
    came later and are at their defaults. What did not exist when a training began does not change it.

    A setting that is added to a config is marked: ``field(default=0.5, metadata={"added": True})``.
    """
    config: Any = getattr(module, "network", module).config
    added = {field.name: field.default for field in fields(config) if field.metadata.get("added")}
    record = describe(module)
    settings = {
        name: value
        for name, value in record["config"].items()
        if value is not False and (name not in added or getattr(config, name) != added[name])
    }
    del record["kind"]  # which hashes of old do not hold
    return {**record, "config": settings}
