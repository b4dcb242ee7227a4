from __future__ import annotations

import torch
from torch import Tensor, nn

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.objective import Batch, Draws, Loss, Objective, Phase, Role
from unnoise.core.registry import register
from unnoise.errors import UnnoiseError
from unnoise.objectives.contrast import Contrast
from unnoise.objectives.self_conditioning import SelfConditioning
from unnoise.objectives.times import TimeSampler, Uniform
from unnoise.objectives.uncertainty import Uncertainty
from unnoise.objectives.variational_bound import VariationalBound
from unnoise.objectives.weightings import Uniform as UniformWeight
from unnoise.objectives.weightings import Weighting


@register("denoising")
class DenoisingObjective(Objective):
    """The one line that trains a diffusion model: the squared error of the network's output on noised data.

    DDPM (arXiv 2006.11239), algorithm 1, for any path, prediction, distribution of times and weight. In a part of the
    samples the prompt is replaced by the empty one, so that one network runs with and without it (Ho and Salimans 2022,
    arXiv 2207.12598, algorithm 1).

    Args:
        denoiser: what is trained.
        times: which times are drawn; drawn evenly over the batch, so that every batch sees all levels.
        weighting: how levels count.
        text: the text tower, called with token ids, where it is trained too; else the batch brings a condition.
        text_rate: factor on the learning rates for the text tower; 0 keeps it as it is.
        drop: part of the samples whose prompt is dropped.
        bound: trains the variance of a network with learned variance, and belongs to those alone.
        feedback: shows a network with self-conditioning what it said; likewise. Both are there by themselves if needed.
        uncertainty: weighs levels by what is left to learn.
        contrast: pushes velocities away from those of other samples, which the batch then brings as "other".
    """

    def __init__(
        self,
        denoiser: Denoiser,
        times: TimeSampler | None = None,
        weighting: Weighting | None = None,
        text: nn.Module | None = None,
        text_rate: float = 0.2,
        drop: float = 0.1,
        bound: VariationalBound | None = None,
        feedback: SelfConditioning | None = None,
        uncertainty: Uncertainty | None = None,
        contrast: Contrast | None = None,
    ) -> None:
        super().__init__()
        self.drop, self.text_rate = checks.number("drop", drop, 0, 1), checks.number("text_rate", text_rate, 0)
        self.denoiser = denoiser
        self.text = text
        self.times, self.weighting = times or Uniform(), weighting or UniformWeight()
        self.bound = bound or (VariationalBound() if denoiser.learned_variance else None)
        self.feedback = feedback or (SelfConditioning() if denoiser.self_conditioning else None)
        self.uncertainty, self.contrast = uncertainty, contrast
        self._check()

    def _check(self) -> None:
        if self.bound is not None:
            self.bound.check(self.denoiser.path)
            if not isinstance(self.times, Uniform):
                raise UnnoiseError("the bound counts all levels alike, and these times are not even", "use even times")
            if not self.denoiser.learned_variance:
                raise UnnoiseError("the bound trains a variance, and this network says none", "make it with one")
        if self.feedback is not None and not self.denoiser.self_conditioning:
            raise UnnoiseError("this network does not read what it said before", "make it with self-conditioning")
        if self.contrast is not None:
            self.contrast.check(self.denoiser.prediction)
            if self.uncertainty is not None:
                raise UnnoiseError(
                    "a contrast can make a level's loss negative, where a learned weight has no least value",
                    "choose one of uncertainty and contrast",
                )

    def roles(self) -> dict[str, Role]:
        roles = {"denoiser": Role(self.denoiser.network, compilable=True)}
        if self.text is not None:
            roles["text"] = Role(self.text, rate=self.text_rate, trained=self.text_rate > 0)
        if self.uncertainty is not None:
            roles["uncertainty"] = Role(self.uncertainty, averaged=False)
        return roles

    def phases(self) -> list[Phase]:
        trains = tuple(name for name, role in self.roles().items() if role.trained)
        return [Phase("denoising", trains, 1, self.loss)]

    def loss(self, batch: Batch, draws: Draws) -> Loss:
        """``batch``: "x0" (B, C, h, w), and "token_ids" (B, L) with "empty_ids" (L,), or "condition" and "empty".

        With a contrast also "other" (B, C, h, w), another sample's x0 for each row.
        """
        x0: Tensor = batch["x0"]
        path, prediction = self.denoiser.path, self.denoiser.prediction
        t = self.times.times(stratified(draws), path)
        level = path.at(t)
        eps = draws.normal("eps", *x0.shape[1:])
        x = level.mix(x0, eps)
        cond = self.condition(batch, draws.uniform("drop") < self.drop)
        previous = self.feedback.previous(self.denoiser, x, t, level, cond, draws) if self.feedback else None
        output, _ = self.denoiser.output(x, t, level, cond, previous=previous)
        value, fraction = self.denoiser.split(output)
        error = (value.float() - prediction.encode(x0, eps, level)) ** 2
        per_sample = error.mean(dim=tuple(range(1, x0.ndim)))  # (B,)
        weight = self.weighting.weight(level, prediction).to(per_sample)
        log_snr = torch.as_tensor(level.log_snr).to(per_sample)
        total, metrics = per_sample, dict[str, Tensor]()
        if self.contrast is not None:
            total = total - self.contrast.penalty(prediction, value.float(), batch["other"], level, draws)
        total = weight * total
        if self.uncertainty is not None:
            u = self.uncertainty(log_snr)
            total, metrics["uncertainty"] = total * torch.exp(-u) + u, u.mean().detach()
        if self.bound is not None and fraction is not None:
            x0_hat, _ = prediction.decode(value.detach().float(), x, level)  # its error is L_simple's business
            bound = self.bound(path, t, x0, x0_hat, fraction.float())
            total, metrics["bound"] = total + self.bound.weight * bound, bound.mean().detach()
        return Loss(total.mean(), per_sample.detach(), log_snr, metrics)

    def condition(self, batch: Batch, dropped: Tensor) -> Condition | None:
        """The condition of each row, the empty prompt's where ``dropped`` (B,) bool says so."""
        if self.text is not None:
            ids: Tensor = torch.where(dropped[:, None], batch["empty_ids"], batch["token_ids"])
            with torch.set_grad_enabled(self.text_rate > 0 and torch.is_grad_enabled()):
                encoded: Condition = self.text(ids)
                return encoded
        if "condition" not in batch:
            return None
        cond: Condition = batch["condition"]
        return cond.where(~dropped, batch["empty"].repeat(len(dropped)))


def stratified(draws: Draws) -> Tensor:
    """(B,) uniform numbers, one in each of `batch` equal parts of [0, 1), in random order: less variance, same law.

    Which part is whose is one permutation of the step's samples; permutation and places are functions of (seed, step).
    """
    whole = Draws(draws.seed, draws.step, draws.batch, slice(None), draws.device)
    place = whole.uniform("time order").argsort()
    offset = whole.uniform("time offset")
    return ((place + offset) / draws.batch)[draws.rows]
