"""Noise that depends on what it is for, and on nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.level import NoiseLevel
from unnoise.errors import UnnoiseError

VERSION = 1


def generator(*key: object) -> torch.Generator:
    """A CPU generator that is a pure function of the key, on every machine; versioned, so that it can change."""
    text = "|".join(str(part) for part in ("unnoise", VERSION, *key))
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=False) >> 1
    return torch.Generator().manual_seed(seed)


def normal(shape: Sequence[int], *key: object) -> Tensor:
    """Standard normal noise in float64 on the CPU: a pure function of the key."""
    return torch.randn(tuple(shape), generator=generator(*key), dtype=torch.float64)


class NoiseSource:
    """The noise of a run: each picture has its own seed, so that it never depends on what else is in the batch.

    Drawn in float64 on the CPU and rounded once, so that it does not depend on the device either.

    Args:
        seeds: one seed for each row of the batch, 0 to 2^63 - 1.
        shape: the shape of one row's state.
        dtype, device: of the noise that is handed out.
        index: the number of the step that it is for; see ``at``.

    Raises:
        UnnoiseError: a seed that is no whole number or out of range, or none; a shape, dtype or device that is none.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        index: float = 0,
    ) -> None:
        self.seeds = tuple(checks.several("seeds", seeds, checks.seed))
        self.shape = tuple(checks.several("shape", shape, partial(checks.whole, least=1), least=0))
        self.dtype = checks.instance("dtype", dtype, torch.dtype, "give one of torch's, such as torch.float32")
        self.device = checks.device("device", device)
        place = checks.number("index", index, least=0)
        self.index = int(place) if place.is_integer() else place  # the key of a whole number has no point
        self._draws = 0

    def _rows(self, *key: object) -> Tensor:
        rows = torch.stack([normal(self.shape, seed, *key) for seed in self.seeds])
        return rows.to(device=self.device, dtype=self.dtype)

    def initial(self) -> Tensor:
        """(B, *shape) standard normal noise to start from; multiply by the first level's sigma."""
        return self._rows("initial")

    def at(self, index: float) -> NoiseSource:
        """The source for one step of the run, by its number: a run that is restarted there sees the same noise.

        A step that begins between two levels of the run has a fraction for a number.
        """
        return NoiseSource(self.seeds, self.shape, self.dtype, self.device, index)

    def between(self, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        """(B, *shape) fresh standard normal noise for the interval. Two draws in one step are independent."""
        self._draws += 1
        return self._rows("step", self.index, self._draws)


class TorchStart(NoiseSource):
    """Noise to start from as torch's own generator draws it, in float32 on the CPU: what diffusers and ComfyUI do.

    A seed of theirs is then the same noise, for a picture of the same shape that is drawn alone there, or with a list
    of generators. Noise on the way is drawn as by ``NoiseSource``. Args are those of ``NoiseSource``.
    """

    def initial(self) -> Tensor:
        """(B, *shape) standard normal noise to start from, each row by a generator of its own."""
        return self._drawn(0)

    def _drawn(self, before: int) -> Tensor:
        """(B, *shape) what the generators of the seeds give after so many draws of the same shape."""
        rows = []
        for seed in self.seeds:
            generator = torch.Generator().manual_seed(seed)
            for _ in range(before):
                torch.randn(self.shape, generator=generator)
            rows.append(torch.randn(self.shape, generator=generator))
        return torch.stack(rows).to(device=self.device, dtype=self.dtype)


class TorchNoise(TorchStart):
    """Noise of a whole run as torch's own generator draws it: first what it starts from, then one draw a step.

    So diffusers draws with solvers that draw once a step, such as LCM and Euler ancestral. What a solver draws beyond
    that, or in a step that begins between two levels, has no counterpart there and is drawn as by ``NoiseSource``. Args
    are those of ``NoiseSource``.
    """

    def at(self, index: float) -> TorchNoise:
        """The source for one step of the run, by its number."""
        return TorchNoise(self.seeds, self.shape, self.dtype, self.device, index)

    def between(self, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        """(B, *shape) fresh standard normal noise for the interval."""
        if self._draws or not isinstance(self.index, int):
            return super().between(here, there)
        self._draws += 1
        return self._drawn(1 + self.index)


_ROOT = -24  # time below 2^-24, that is sigma/alpha above 4096, is one piece
_DIGITS = 24  # binary digits of a time within its piece


def _levy(level: NoiseLevel) -> tuple[float, dict[tuple[int, int, int], float]]:
    """(T, weights): the level's time, and B(T) as the weights of independent standard normals, by their keys.

    Levy's construction: time is cut into the pieces [0, 2^-24) and [2^k, 2^(k+1)). A motion that is known at both ends
    of an interval of width w is, in the middle, their mean and sqrt(w) / 2 of a new normal; in between that normal
    counts by a hat. Times are rounded to 24 digits, so that the halving ends and the law is exact where it ends.
    """
    sigma_hat = float(level.sigma_hat)
    if sigma_hat == 0:
        raise UnnoiseError("the Brownian path has no value at clean data", "draw no noise in the step to sigma = 0")
    time = sigma_hat**-2.0
    piece = max(math.frexp(time)[1] - 1, _ROOT - 1) if time else _ROOT - 1
    left, width = (2.0**piece, 2.0**piece) if piece >= _ROOT else (0.0, 2.0**_ROOT)
    place = round((time - left) / width * 2**_DIGITS) / 2**_DIGITS  # in [0, 1]
    weights = {(k, 0, 0): 2.0 ** (max(k, _ROOT) / 2) for k in range(_ROOT - 1, piece)}  # pieces that lie behind
    weights[piece, 0, 0] = math.sqrt(width) * place
    for halving in range(1, _DIGITS + 1):
        inside, index = math.modf(place * 2 ** (halving - 1))
        if inside == 0:
            break
        tall = math.sqrt(width / 2 ** (halving - 1)) / 2
        weights[piece, halving, int(index)] = tall * (1 - abs(2 * inside - 1))
    return left + place * width, weights


class BrownianNoise(NoiseSource):
    """The noise of a run as increments of one Brownian motion for each picture: a finer grid refines the same path.

    Use it where a picture should stay itself as the number of steps changes. Its time is the signal-to-noise ratio
    T = (alpha / sigma)^2, which is 0 at pure noise and rises to infinity at clean data. In that time the ancestral step
    (eta 1) is, on every path and for every length, y' = y + (T' - T) x0 + B(T') - B(T) with y = T x / alpha: what two
    steps draw is exactly what the one step over both draws. The continuous form is stochastic localisation (Montanari
    2023, arXiv 2305.10690); a tree that is computed where it is asked for, and stored nowhere, is the virtual Brownian
    tree of Li et al. 2020 (arXiv 2001.01328). For any eta a run converges as its grid is refined.

    Noise on the way up, toward more noise (churn), is no part of the path: it is drawn anew for the step, as by
    ``NoiseSource``. Args are those of ``NoiseSource``.
    """

    def at(self, index: float) -> BrownianNoise:
        """The source for one step: the path does not depend on it, noise on the way up does."""
        return BrownianNoise(self.seeds, self.shape, self.dtype, self.device, index)

    def between(self, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        """(B, *shape) the path's increment over the interval, divided by its standard deviation.

        Raises:
            UnnoiseError: ``there`` is clean data, or so close to ``here`` that both are one time.
        """
        if float(there.sigma_hat) > float(here.sigma_hat):
            return super().between(here, there)
        (start, before), (end, after) = _levy(here), _levy(there)
        if not end > start:
            raise UnnoiseError(
                f"two noise levels of a step are one and the same to {_DIGITS} binary digits "
                f"(sigma/alpha {float(there.sigma_hat):.8g})",
                "ask for fewer steps",
            )
        scale = 1 / math.sqrt(end - start)
        change = {key: scale * (after.get(key, 0.0) - before.get(key, 0.0)) for key in before | after}
        rows = [self._sum(seed, change) for seed in self.seeds]
        return torch.stack(rows).to(device=self.device, dtype=self.dtype)

    def _sum(self, seed: int, weights: dict[tuple[int, int, int], float]) -> Tensor:
        total = torch.zeros(self.shape, dtype=torch.float64)
        for key, weight in weights.items():
            if weight:
                total += weight * normal(self.shape, seed, "brownian", *key)
        return total
