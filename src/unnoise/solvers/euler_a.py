from __future__ import annotations

from torch import Tensor

from unnoise.core.estimate import Estimate
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import register
from unnoise.core.solver import Denoise
from unnoise.solvers.ancestral import Ancestral


@register("euler-a", "euler_a", "euler_ancestral", "Euler a", "EulerAncestralDiscreteScheduler")
class EulerA(Ancestral):
    """Euler down to a lower level, then up again with fresh noise; the first-order step of every SDE here.

    With eta 1 it is DDIM with eta 1, DDPM with its small variance and SDE-DPM-Solver++(1): Song et al. 2020 (arXiv
    2010.02502), equations 12 and 16; Lu et al. 2022 (arXiv 2211.01095). "rectified" takes the amount of
    noise that programs for flow models take (diffusers' LTXEulerAncestralRFScheduler, ComfyUI).

    Args:
        eta: how much of the noise is fresh, in [0, 1]; 0 is Euler.
        s_noise: factor on the fresh noise; anything but 1 leaves states noisier or cleaner than their level.
        rule: "posterior", right on every path, or "rectified".
    """

    order = 1
    stochastic = True
    use = "loose, lively pictures in 20 to 40 steps; never settles as steps are added"

    def down(self, denoise: Denoise, e: Estimate, here: NoiseLevel, low: NoiseLevel, there: NoiseLevel) -> Tensor:
        return low.mix(e.x0, e.eps)
