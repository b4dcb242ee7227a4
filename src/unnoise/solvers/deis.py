from __future__ import annotations

from unnoise.core.registry import register
from unnoise.solvers.adams import Adams


@register("deis", "deis-3m", "deis_3m")
class DEIS(Adams):
    """DEIS: a polynomial through the last predicted noises, in log-SNR, integrated exactly. One call a step, order 3.

    Zhang and Chen 2022 (arXiv 2204.13902), AB-DEIS with the polynomial in log(sigma/alpha), diffusers' "logrho". The
    same as DPM-Solver in many steps. The step to clean data is Euler's.

    Args:
        points: estimates that a step looks at, and its order; 1 to 4.
        lower_order_final: in a run that ends in data, look at no more estimates than steps are left.
        singlestep_start: take the first steps as single ones of third order, of three calls: without it a run of order
            above 2 is of second order as a whole, however small its error.
        steady: look at fewer estimates in a step much longer than those before it, where they would be magnified.
    """

    order = 3
    use = "few steps with weak guidance or none; strong guidance is for methods that follow the picture"

    form = "eps"

    def __init__(
        self, points: int = 3, lower_order_final: bool = True, singlestep_start: bool = False, steady: bool = True
    ) -> None:
        super().__init__(points, lower_order_final, singlestep_start, steady)
