"""Seeds and diversity: what another seed changes, what it leaves, and whether a fault is a prompt's or a seed's."""

from __future__ import annotations

import torch
from torch import Tensor

from unnoise.study.chart import Chart, Series
from unnoise.study.distances import diversity_of, mean_of
from unnoise.study.film import evenly
from unnoise.study.lab import Lab
from unnoise.study.leaderboard import features, variety
from unnoise.study.page import Lesson, Table, Value, grid

LEAST = 4
ALONE = 16  # pictures that are drawn again, each alone


def study(lab: Lab) -> Lesson:
    """Draws each prompt with several seeds, four or more, and some pictures again, each alone.

    The diversity between prompts is compared with that of the real pictures. If variety is near 0, the model knows only
    one picture for the prompt: it has memorised it, or has seen no other.
    """
    real = features(lab.eyes, lab.real)  # a missing judge is reported before anything is drawn
    turns = max(lab.seeds, LEAST)
    pictures = torch.stack([lab.draw(seeds=lab.turns(turn)).pixels for turn in range(turns)])  # (S, P, 3, H, W)
    looks = torch.stack([features(lab.eyes, pixels) for pixels in pictures])
    right = torch.stack([lab.right(pixels) for pixels in pictures])  # (S, P)
    apart = variety(looks)  # (P,)
    singles = [
        lab.draw([caption], [seed]).pixels for caption, seed in zip(lab.captions[:ALONE], lab.turns(), strict=False)
    ]
    again = int((torch.cat(singles).int() - pictures[0, :ALONE].int()).abs().max())
    kinds = list(dict.fromkeys(lab.prompts.tiers))
    rows: list[list[Value]] = [
        [kind, len(mine), mean_of(apart[mine], lab.seed), mean_of(right[:, mine].mean(0), lab.seed)]
        for kind in kinds
        if len(mine := lab.prompts.rows(kind)) > 1
    ]
    whole = {
        "variety, seeds of one prompt": mean_of(apart, lab.seed),
        "diversity, different prompts": diversity_of(looks[0], lab.seed),
        "diversity of the real pictures": diversity_of(real, lab.seed),
    }
    share = of_prompts(right)
    order = apart.argsort()
    rows_shown = [int(order[i]) for i in evenly(len(order), 6)]
    names = [f"{lab.captions[i]}: {float(apart[i]):.3g}" for i in rows_shown]
    curve = [(i + 1.0, float(apart[k])) for i, k in enumerate(order.tolist())]
    share_text = (
        "" if share is None else f" Of what varies in being right, {share:.0%} is the prompts' and the rest the seeds'."
    )
    return Lesson(
        "Seeds",
        [
            f"Of {len(singles)} pictures drawn once more, each by itself and not among others, the largest difference "
            f"of any channel is {again} of 255.{share_text}",
            "Pictures are shown from the prompt that seeds change least to the one that they change most.",
        ],
        [
            Table(["of", "1 - cosine"], [[name, figure] for name, figure in whole.items()], "In the judge's features."),
            Table(["kind", "prompts", "variety", "own caption first"], rows),
        ],
        [
            Chart(
                "Variety by prompt", "prompts, least varied first", "1 - cosine", [Series("seeds of one prompt", curve)]
            )
        ],
        grid([pictures[:, i] for i in rows_shown], [f"seed +{turn}" for turn in range(turns)], names),
        seeds=turns,
    )


def of_prompts(right: Tensor) -> float | None:
    """Share of the variance of (S, P) zeros and ones that lies between prompts: intraclass correlation, ICC(1).

    Shrout and Fleiss 1979, from the mean squares between and within prompts; 1 if the seeds of each prompt agree, 0 if
    they differ as much as those of different prompts, clipped at 0. None if all values are equal.
    """
    seeds, prompts = right.shape
    means = right.double().mean(0)
    between = float(seeds * (means - means.mean()).pow(2).sum() / (prompts - 1))
    within = float((right.double() - means).pow(2).sum() / (prompts * (seeds - 1)))
    total = between + (seeds - 1) * within
    return None if total == 0 else max(0.0, (between - within) / total)
