"""How often the index of training pictures finds a changed copy, beside thumbnails compared pixel by pixel.

    python bench/nearest.py data/emoji

Prints the table of docs/command-line.md: of 150 training pictures, changed, the share that is found first as itself and
as one of its family, the median distance, and the share of families that thumbnails of 32 x 32 find.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from unnoise.data.store import open_set
from unnoise.study.memorisation import thumbnails
from unnoise.study.nearest import build


def moved(x: Tensor, right: int, down: int) -> Tensor:
    """Moved on white; what leaves the picture is lost."""
    padded = F.pad(x, (16, 16, 16, 16), value=255)
    return padded[..., 16 - down : 144 - down, 16 - right : 144 - right]


def smaller(x: Tensor, share: float) -> Tensor:
    """Scaled, in the middle of white."""
    side = round(128 * share)
    small = F.interpolate(x.float(), size=side, mode="bilinear", antialias=True).round().to(torch.uint8)
    before = (128 - side) // 2
    after = 128 - side - before
    return F.pad(small, (before, after, before, after), value=255)


def turned(x: Tensor, degrees: float) -> Tensor:
    """Every hue turned, luma kept: a rotation of the two colour axes of YIQ."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    turn = yiq.inverse() @ torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]]) @ yiq
    return torch.einsum("ij,njhw->nihw", turn, x.float()).clamp(0, 255).round().to(torch.uint8)


def grainy(x: Tensor) -> Tensor:
    grain = 12 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + grain).clamp(0, 255).round().to(torch.uint8)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "mirrored": lambda x: x.flip(-1),
    "moved by (4, -3)": lambda x: moved(x, 4, -3),
    "moved by (8, 6)": lambda x: moved(x, 8, 6),
    "scaled to 88 %": lambda x: smaller(x, 0.88),
    "darker by 30 %": lambda x: (x * 0.7).to(torch.uint8),
    "hue turned by 60": lambda x: turned(x, 60),
    "hue turned by 180": lambda x: turned(x, 180),
    "moved by (5, 4), hue turned by 90": lambda x: turned(moved(x, 5, 4), 90),
    "grain of 12 levels": grainy,
}


@torch.inference_mode()
def main(data: tyro.conf.Positional[Path], count: int = 150) -> None:
    """Measure it.

    Args:
        data: the emoji set, of pictures of 128 x 128.
        count: how many pictures are changed.
    """
    pictures = open_set(data)
    rows = pictures.select("denoiser")
    index, pixels = build(pictures), pictures.pictures(rows)
    small = thumbnails(pixels).float()
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count].tolist()

    def same(a: int, b: int, kin: bool) -> bool:
        a, b = rows[a], rows[b]
        return pictures.identical[a] == pictures.identical[b] or (kin and pictures.family[a] == pictures.family[b])

    def share(found: list[int], kin: bool) -> float:
        return 100 * sum(same(a, b, kin) for a, b in zip(found, chosen, strict=True)) / count

    for name, change in CHANGES.items():
        changed = change(pixels[chosen])
        firsts = [matches[0] for matches in index.search(changed, 1)]
        plain = torch.cdist(thumbnails(changed).float(), small).argmin(1).tolist()
        own = [first.row for first in firsts]
        median = torch.tensor([first.distance for first in firsts]).median()
        shares = f"{share(own, False):.0f} % | {share(own, True):.0f} % | {median:.2f} | {share(plain, True):.0f} %"
        print(f"| {name} | {shares} |")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (20, 3, 128, 128), generator=generator, dtype=torch.uint8)
    blobs = F.interpolate(torch.randint(0, 256, (20, 3, 8, 8), generator=generator).float(), size=128, mode="bicubic")
    held = pictures.pictures([row for row, tier in enumerate(pictures.tier) if tier == "tier2"])
    for name, x in (("tier 2", held), ("noise", noise), ("blobs", blobs.clamp(0, 255).to(torch.uint8))):
        print(f"| {name} | | | {torch.tensor([m[0].distance for m in index.search(x, 1)]).median():.2f} | |")


if __name__ == "__main__":
    tyro.cli(main)
