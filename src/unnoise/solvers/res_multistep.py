from __future__ import annotations

from unnoise.core.registry import register
from unnoise.solvers.adams import Adams


@register("res-multistep", "res_multistep", "res-2m", "res_2m", "exp-adams")
class RESMultistep(Adams):
    """Exponential Adams: a polynomial through the last predicted pictures, in log-SNR, exactly. One call, order 2.

    RES in many steps (Zhang et al. 2023, arXiv 2308.02157); Hochbruck and Ostermann 2010 (Acta Numerica 19), section
    2. With 3 points it is dpmpp-3m. The step to clean data is Euler's.

    Args:
        points: estimates that a step looks at, and its order; 1 to 4.
        lower_order_final: in a run that ends in data, look at no more estimates than steps are left.
        singlestep_start: take the first steps as single ones of third order, of three calls: without it a run of order
            above 2 is of second order as a whole, however small its error.
        steady: look at fewer estimates in a step much longer than those before it, where they would be magnified.
    """

    order = 2
    use = "as dpmpp-2m with exact weights, and of any order to 4; closer where steps are many"

    form = "x0"

    def __init__(
        self, points: int = 2, lower_order_final: bool = True, singlestep_start: bool = False, steady: bool = True
    ) -> None:
        super().__init__(points, lower_order_final, singlestep_start, steady)
