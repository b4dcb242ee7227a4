"""A calibrated network: one whose numbers have a meaning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unnoise.core import checks
from unnoise.core.condition import Condition
from unnoise.core.edit import Edit
from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel, Scalar, over
from unnoise.core.path import Path
from unnoise.core.prediction import Prediction


def _log_sigma(t: Scalar, level: NoiseLevel) -> Scalar:
    sigma = level.sigma_hat
    return torch.log(sigma) / 4 if isinstance(sigma, Tensor) else math.log(sigma) / 4


NOISE_LABELS: dict[str, Callable[[Scalar, NoiseLevel], Scalar]] = {
    "index": lambda t, level: t * 1000 - 1,  # DDPM: the number of the training level, from 0 to 999
    "time": lambda t, level: t * 1000,  # rectified flow: time, in thousandths
    "log-sigma": _log_sigma,  # EDM: c_noise = ln(sigma) / 4
}


class NetworkInput(NamedTuple):
    """A state as a network sees it.

    Attributes:
        x: (B, C, ...) the state, rescaled onto the network's own path.
        level: its level there.
        scaled: (B, C or 2 C, ...) the network's input, in its own precision.
        label: (B,) float32 noise label.
    """

    x: Tensor
    level: NoiseLevel
    scaled: Tensor
    label: Tensor


class Denoiser(nn.Module):
    """Network, path, prediction and noise label in one: the only thing that sees both levels and labels.

    It answers at any level: a state from another path is rescaled onto this denoiser's own path at equal log-SNR. The
    estimates of x0 and eps need no scaling back, since both belong to the picture and not to the path.

    Args:
        network: called as ``network(x, noise_label, cond, edits=(), read=()) -> (output, features)``; may be compiled.
        path: the path that the network was trained on.
        prediction: what its output means.
        noise_label: how it gets the level: "index", "time" or "log-sigma".

    Attributes:
        learned_variance: whether the network also predicts a fraction of variance, in as many channels again behind the
            others; its config has a field of this name.
        self_conditioning: whether it reads its previous estimate, in as many channels again behind the state's;
            likewise.
    """

    def __init__(self, network: nn.Module, path: Path, prediction: Prediction, noise_label: str = "time") -> None:
        super().__init__()
        self.network = network
        self.path = checks.instance("path", path, Path, "give one, such as Flow()")
        self.prediction = checks.instance("prediction", prediction, Prediction, "give one, such as FlowVelocity()")
        self.noise_label = checks.choice("noise_label", noise_label, *NOISE_LABELS)
        config = getattr(network, "config", None)
        self.learned_variance = bool(getattr(config, "learned_variance", False))
        self.self_conditioning = bool(getattr(config, "self_conditioning", False))

    def forward(
        self,
        x: Tensor,
        here: NoiseLevel,
        there: NoiseLevel | None = None,
        cond: Condition | None = None,
        edits: Sequence[Edit] = (),
        read: Sequence[str] = (),
        previous: Estimate | None = None,
    ) -> Estimate:
        """E[x0 | x] and E[eps | x] at the level `here`.

        Args:
            x: (B, C, ...) state.
            here: its level, floats for all rows or tensors of shape (B,), or (1,) for all rows.
            there: the level that the step goes to; only networks with two times use it.
            cond: what the picture is asked to be, B rows.
            edits: changes inside the network, for this call alone.
            read: names of features to bring back in ``Estimate.parts``.
            previous: the estimate of a step earlier; only networks with self-conditioning use it, and do without.

        Raises:
            UnnoiseError: the prediction cannot be inverted at this level, or ``x`` or ``here`` is no such thing.
        """
        network_input = self.enter(x, here, previous)
        if isinstance(network_input, Estimate):
            return network_input
        output, features = self.call(network_input.scaled, network_input.label, cond, edits, read)
        return self.leave(output, network_input, features)

    def enter(self, x: Tensor, here: NoiseLevel, previous: Estimate | None = None) -> NetworkInput | Estimate:
        """The network's input for a state at a level; for clean data, which needs no call, the estimate.

        The first third of ``forward``: rows of several runs, each at a level of its own, enter one by one, share one
        call of the network, and leave one by one. Args are those of ``forward``.
        """
        checks.instance("x", x, Tensor, "give a state, such as noise.initial()")
        checks.instance("here", here, NoiseLevel, "give the state's level: NoiseLevel(alpha, sigma)")
        if not isinstance(here.sigma, Tensor) and here.sigma == 0:
            return Estimate(x / over(here.alpha, x), torch.zeros_like(x))
        t = self.path.time_of(here)
        own = self.path.at(t)
        self.prediction.check(own)
        x = x * over(_ratio(own, here), x)
        again = self.fed_back(previous) if self.self_conditioning and previous is not None else None
        return NetworkInput(x, own, *self.scaled(x, t, own, again))

    def leave(
        self, output: Tensor, network_input: NetworkInput, features: Mapping[str, Tensor] | None = None
    ) -> Estimate:
        """The estimate that the network's raw output stands for, in the precision of the state."""
        output, fraction = self.split(output.to(network_input.x.dtype))
        x0, eps = self.prediction.decode(output, network_input.x, network_input.level)
        return Estimate(x0, eps, fraction, features or None)

    def output(
        self,
        x: Tensor,
        t: Scalar,
        level: NoiseLevel,
        cond: Condition | None = None,
        edits: Sequence[Edit] = (),
        read: Sequence[str] = (),
        previous: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's raw output for a state on its own path; training compares it with ``prediction.encode``.

        ``previous``, for networks with self-conditioning alone, is what ``fed_back`` made of an earlier estimate, shape
        of the state; None is the same as zeros. The output of a network with learned variance is for ``split``.
        """
        scaled, label = self.scaled(x, t, level, previous)
        output, features = self.call(scaled, label, cond, edits, read)
        return output.to(x.dtype), features

    def scaled(self, x: Tensor, t: Scalar, level: NoiseLevel, previous: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(state as the network sees it, (B,) noise label); args are those of ``output``."""
        label = NOISE_LABELS[self.noise_label](t, level)
        if not isinstance(label, Tensor):
            label = torch.full((x.shape[0],), float(label), dtype=torch.float32, device=x.device)
        label = label.to(device=x.device, dtype=torch.float32)
        # states stay in their own precision: rounded at every step they would drift, the more the more steps
        dtype = next((p.dtype for p in self.network.parameters()), x.dtype)
        scaled = (x * over(self.prediction.scale_in(level), x)).to(dtype)
        if previous is not None:
            scaled = torch.cat([scaled, previous.to(dtype)], dim=1)
        return scaled, label

    def call(
        self,
        scaled: Tensor,
        label: Tensor,
        cond: Condition | None = None,
        edits: Sequence[Edit] = (),
        read: Sequence[str] = (),
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One call of the network: (raw output, what was read)."""
        return self.network(scaled, label, cond, edits=tuple(edits), read=tuple(read))  # type: ignore[no-any-return]

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """(what the prediction is of, fraction of variance) of a raw output, (B, C, ...) each.

        Nichol and Dhariwal 2021 (arXiv 2102.09672), equation 15, as in their code: the network predicts v, -1 for the
        smaller variance and 1 for the larger, and the fraction is (v + 1)/2. None without learned variance.
        """
        if not self.learned_variance:
            return output, None
        mean, v = output.chunk(2, dim=1)
        return mean, (v + 1) / 2

    def fed_back(self, estimate: Estimate) -> Tensor:
        """The input of a network with self-conditioning from an earlier estimate, in the state's shape.

        The picture, or the noise where that is what the network predicts: a picture that is computed from predicted
        noise is divided by alpha, and so without bounds near pure noise. The setting "auto" of the authors' code
        (google-research/pix2seq, get_self_cond_estimate); the paper, arXiv 2208.04202, predicts pictures.
        """
        a, _ = self.prediction.target(NoiseLevel(0.6, 0.8))
        return estimate.eps if a == 0 else estimate.x0


def _ratio(own: NoiseLevel, here: NoiseLevel) -> Scalar:
    """own.alpha / here.alpha, at equal log-SNR also own.sigma / here.sigma: the better-conditioned of the two."""
    if isinstance(here.alpha, Tensor) or isinstance(here.sigma, Tensor):
        alpha, sigma = torch.as_tensor(here.alpha), torch.as_tensor(here.sigma)
        return torch.where(alpha > sigma, own.alpha / alpha, own.sigma / sigma)
    return own.alpha / here.alpha if here.alpha > here.sigma else own.sigma / here.sigma
