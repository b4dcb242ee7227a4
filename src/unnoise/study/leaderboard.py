"""The leaderboard: models on the same prompts under one judge, always with a ceiling, a floor and a memoriser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise.core.autoencoder import Autoencoder
from unnoise.data.store import PictureSet
from unnoise.errors import UnnoiseError
from unnoise.pictures import from_bytes, to_bytes
from unnoise.study.candidates import Candidates
from unnoise.study.chart import escape
from unnoise.study.distances import Figure, diversity_of, frechet_of, kernel_of, mean_of
from unnoise.study.judge import Judge, first
from unnoise.study.memorisation import copied, memoriser, nearest

TIERS = ("trained", "tier1", "tier2")
FIGURES = {
    "trained": "own caption first among its candidates, prompts that were trained",
    "plain": "the same, those of them without a skin tone",
    "tier1": "the same, a person and role in a skin tone that was held out",
    "tier2": "the same, a person and role that were held out in all tones",
    "FD-local": "Frechet distance to the real pictures of the prompts, in the judge's features",
    "KD-local": "kernel distance to them, unbiased",
    "diversity": "mean of 1 - cosine between pictures of different prompts",
    "variety": "the same between pictures of one prompt with different seeds",
    "saturation": "mean saturation of the ink less that of the real pictures",
    "copied": "chance of lying nearer to the training pictures than a real held-out picture; one half is fair",
}


class Prompts(NamedTuple):
    """The pictures whose captions are drawn: indices into the set, and the tier of each."""

    items: list[int]
    tiers: list[str]

    def rows(self, *tiers: str) -> list[int]:
        """The rows of the prompts of these tiers."""
        return [row for row, tier in enumerate(self.tiers) if tier in tiers]


def choose_prompts(pictures: PictureSet, part: str, count: int) -> Prompts:
    """Up to ``count`` captioned pictures of each tier, evenly spread over it; one of each group of equal pictures.

    Raises:
        UnnoiseError: a tier has fewer than two pictures, too few for a figure.
    """
    groups = {"trained": pictures.select("denoiser"), **{t: pictures.held_out(t, part) for t in TIERS[1:]}}
    rows: list[tuple[int, str]] = []
    for tier, every in groups.items():
        items = list({pictures.identical[i]: i for i in every if pictures.captions[i][0]}.values())
        if len(items) < 2:
            raise UnnoiseError(
                f"{pictures.path} has {len(items)} pictures of {tier}, {part}", "name a set with a held-out split"
            )
        number = min(count, len(items))
        rows += [(items[place * len(items) // number], tier) for place in range(number)]
    return Prompts([item for item, _ in rows], [tier for _, tier in rows])


class Row(NamedTuple):
    """One line of the board.

    Attributes:
        name: of the model or control.
        figures: by name, None if a figure makes no sense.
        pictures: uint8 (P, 3, H, W), one a prompt, for the contact sheet.
    """

    name: str
    figures: Mapping[str, Figure | None]
    pictures: Tensor


class Board:
    """Measures pictures of the same prompts; values that depend only on the set are computed once.

    Args:
        judge: the judge.
        pictures: the set.
        prompts: those of its pictures whose captions are drawn.
        seed: of the bootstrap and of the shuffle.
    """

    def __init__(self, judge: Judge, pictures: PictureSet, prompts: Prompts, seed: int = 0) -> None:
        self.judge, self.pictures, self.prompts, self.seed = judge, pictures, prompts, seed
        self.candidates = Candidates(pictures)
        self.captions = judge.captions([captions[0] for captions in pictures.captions])
        self.real = pictures.pictures(prompts.items)
        self.real_features = features(judge, self.real)
        self.held_out = prompts.rows(*TIERS[1:])
        self.training = pictures.pictures(pictures.select("denoiser"))

    def row(self, name: str, pictures: Tensor, copies: Tensor | None = None) -> Row:
        """The figures of drawn pictures.

        Args:
            name: of the row.
            pictures: uint8 (S, P, 3, H, W): S seeds of each prompt. Retrieval is the mean over seeds; distances of sets
                use the first seed, so that every row compares the same number of pictures.
            copies: (H,) ``nearest`` of the real held-out pictures after the ceiling's autoencoder; None leaves
                ``copied`` out.
        """
        if pictures.shape[1] != len(self.prompts.items):
            raise UnnoiseError(
                f"{pictures.shape[1]} pictures for {len(self.prompts.items)} prompts", "draw one for each"
            )
        looks = torch.stack([features(self.judge, each) for each in pictures])  # (S, P, D)
        figures: dict[str, Figure | None] = dict(self._retrieval(looks))
        figures["FD-local"] = frechet_of(looks[0], self.real_features, self.seed)
        figures["KD-local"] = kernel_of(looks[0], self.real_features, self.seed)
        figures["diversity"] = diversity_of(looks[0], self.seed)
        figures["variety"] = mean_of(variety(looks), self.seed) if len(pictures) > 1 else None
        figures["saturation"] = mean_of(saturation(pictures[0]) - saturation(self.real), self.seed)
        figures["copied"] = None if copies is None else copied(self.distances(pictures[0]), copies, self.seed)
        return Row(name, figures, pictures[0])

    def _retrieval(self, looks: Tensor) -> dict[str, Figure | None]:
        """By tier and for plain prompts, the share of pictures (S, P, D) whose own caption is first, over all seeds."""
        is_first = torch.stack([first(each, self.captions, self.prompts.items, self.candidates) for each in looks])
        right = is_first.double().mean(0)  # (P,)
        figures = {tier: mean_of(right[self.prompts.rows(tier)], self.seed) for tier in TIERS}
        plain = [row for row in self.prompts.rows("trained") if self._is_plain(row)]
        return figures | {"plain": mean_of(right[plain], self.seed) if len(plain) > 1 else None}

    def _is_plain(self, row: int) -> bool:
        """Whether a prompt's thing has no skin tone: half of the pictures are tones of a few hundred things."""
        return not self.pictures.attributes[self.prompts.items[row]].get("tones")

    def distances(self, pictures: Tensor) -> Tensor:
        """(H,) of the held-out prompts' pictures to the nearest training picture, from uint8 (P, 3, H, W)."""
        return nearest(pictures[self.held_out], self.training)

    def controls(self, autoencoder: Autoencoder, name: str) -> tuple[list[Row], Tensor]:
        """Ceiling, floor and memoriser of an autoencoder, and the ceiling's ``distances`` for the models' rows.

        The ceiling is the real pictures after the autoencoder: no denoiser can do better through it. The floor is the
        same pictures with other captions: their set is perfect, and their retrieval is chance. The memoriser draws
        training pictures for any prompt: a leaderboard that does not expose it is broken.
        """
        ceiling = after(autoencoder, self.real)
        copies = self.distances(ceiling)
        best = self.row(f"ceiling: real pictures after the autoencoder of {name}", ceiling[None])
        others = ceiling.roll(len(ceiling) // 2, 0)
        chance = self._retrieval(features(self.judge, others)[None])
        floor = Row("floor: the ceiling with shuffled captions", {**best.figures, **chance}, others)
        latents = encode(autoencoder, self.training)
        seeds = [self.seed + row for row in range(len(self.prompts.items))]
        memorised = decode(autoencoder, memoriser(latents, seeds))
        return [best, floor, self.row("memoriser: draws training pictures", memorised[None], copies)], copies


def features(judge: Judge, pixels: Tensor) -> Tensor:
    """(P, D) features of uint8 pictures, of length sqrt(D), so that x . y / D in the kernel is their cosine."""
    unit = judge.pictures(pixels)
    looks: Tensor = unit * unit.shape[1] ** 0.5
    return looks


@torch.inference_mode()
def encode(autoencoder: Autoencoder, pixels: Tensor) -> Tensor:
    """(N, C, h, w) float32 posterior means on the processor."""
    where = next(autoencoder.parameters())
    return torch.cat([autoencoder.encode(from_bytes(x).to(where)).mean.float().cpu() for x in torch.split(pixels, 16)])


@torch.inference_mode()
def decode(autoencoder: Autoencoder, latents: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) on the processor."""
    where = next(autoencoder.parameters())
    return torch.cat([to_bytes(autoencoder.decode(z.to(where))).cpu() for z in torch.split(latents, 16)])


def after(autoencoder: Autoencoder, pixels: Tensor) -> Tensor:
    """Pictures encoded and decoded by the autoencoder, uint8."""
    return decode(autoencoder, encode(autoencoder, pixels))


def variety(features: Tensor) -> Tensor:
    """(P,) mean of 1 - cosine over pairs of seeds, from features (S, P, D) of two seeds or more."""
    unit = torch.nn.functional.normalize(features, dim=2)
    total = unit.sum(0)  # (P, D): |sum|^2 = S + the sum of cosines over ordered pairs
    pairs = len(features) * (len(features) - 1)
    return 1 - ((total**2).sum(1) - len(features)) / pairs


def saturation(pixels: Tensor) -> Tensor:
    """(N,) mean of (max - min) / max over a picture's ink, from uint8 (N, 3, H, W); 0 if there is no ink.

    Ink is every pixel that is not nearly white, as for colour words in captions. Too much guidance shows here first.
    """
    x = pixels.double() / 255
    high, low = x.amax(1), x.amin(1)  # (N, H, W)
    ink = (low < 0.9).double()
    value = (high - low) / high.clamp_min(1 / 255)
    return (value * ink).sum((1, 2)) / ink.sum((1, 2)).clamp_min(1)


def text_of(figure: Figure | None) -> str:
    """A figure with its interval, to three digits."""
    return "-" if figure is None else f"{figure.value:.3g} [{figure.low:.3g}, {figure.high:.3g}]"


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The columns for which some row has a figure."""
    return [name for name in FIGURES if any(row.figures.get(name) is not None for row in rows)]


def markdown(rows: Sequence[Row], facts: Mapping[str, Any], captions: Sequence[str] = ()) -> str:
    """The leaderboard as a page: facts, the table, the meaning of each column, and the prompts on its sheets."""
    columns = columns_of(rows)
    head = "# Leaderboard\n\n" + "".join(f"- {name}: {value}\n" for name, value in facts.items())
    table = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for number, row in enumerate(rows, 1):
        name = f"[{row.name}](sheet-{number}.png)"
        table.append("| " + " | ".join([name, *(text_of(row.figures.get(column)) for column in columns)]) + " |")
    meanings = "\n".join(f"- [{name}]({name.lower()}.svg): {FIGURES[name]}" for name in columns)
    sheets = (
        f"\nEach row's name leads to its sheet. From left to right, ten a row: {'; '.join(captions)}.\n"
        if captions
        else ""
    )
    note = (
        "In brackets the middle 95 % of a bootstrap over prompts. FD-local falls with the number of pictures: compare "
    )
    note += "only rows of one leaderboard, and none of these figures with a published FID or KID."
    return f"{head}\n" + "\n".join(table) + f"\n\n{note}\n\n{meanings}\n{sheets}"


def plot(rows: Sequence[Row], figure: str) -> str:
    """One column of the leaderboard as an SVG: a dot with its interval for each row, on one scale."""
    points = [(row.name, value) for row in rows if (value := row.figures.get(figure)) is not None]
    ends = [end for _, value in points for end in (value.low, value.high, value.value)] or [0.0]
    low, high = min(0.0, *ends), max(ends)
    span = (high - low) or 1.0
    lines = [f'<text x="10" y="20" font-weight="bold">{escape(figure)}</text>']
    for number, (name, value) in enumerate(points):
        y = 48 + 24 * number
        at = [420 + 340 * (each - low) / span for each in (value.low, value.value, value.high)]
        lines += [
            f'<text x="10" y="{y + 4}">{escape(name[:56])}</text>',
            f'<line x1="{at[0]:.1f}" x2="{at[2]:.1f}" y1="{y}" y2="{y}" stroke="#888" stroke-width="3"/>',
            f'<circle cx="{at[1]:.1f}" cy="{y}" r="5" fill="#06c"/>',
            f'<text x="775" y="{y + 4}">{escape(text_of(value))}</text>',
        ]
    height = 60 + 24 * len(points)
    style = 'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12"'
    body = "\n".join(lines)
    return (
        f'<svg {style} width="960" height="{height}">\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )
