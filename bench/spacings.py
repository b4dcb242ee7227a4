"""Which levels each spacing visits: the picture on docs/spacings.md.

    python bench/spacings.py --out docs/images/spacings.png

A row for each, a dot for each level of ten steps on DDPM's linear path, by sigma/alpha. The last level, data, has no
place on a logarithmic axis and is left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

from unnoise.core.notation import make
from unnoise.core.registry import find

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SHOWN = (
    "trailing", "leading", "linspace", "beta", "beta-sigma", "linear-quadratic", "karras", "log-snr",
    "poly-exponential(rho=2)", "kl-optimal", "align-your-steps", "align-your-steps(mixture)", "shifted(3)",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a PNG file")
    out = parser.parse_args().out
    path = find("paths", "ddpm-linear")()
    figure, axes = plt.subplots(figsize=(8, 4.2))
    for row, name in enumerate(SHOWN):
        sigmas = [float(level.sigma_hat) for level in make("spacings", name).levels(path, 10)[:-1]]
        axes.plot(sigmas, [row] * len(sigmas), "o-", markersize=5, linewidth=0.6)
    axes.set(xscale="log", xlabel="sigma/alpha: pure noise on the left, data on the right")
    axes.set_yticks(range(len(SHOWN)), SHOWN, fontsize=8)
    axes.invert_xaxis()
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
