"""What trainings read of a picture set."""

from __future__ import annotations

import torch
from torch import Tensor

from unnoise.core.objective import Batch, Draws
from unnoise.data.store import PictureSet


class CropFeed:
    """Pictures in [-1, 1] for an autoencoder: square crops that hold ink, and whole pictures toward the end.

    Half of such a picture is white, and a convolution learns as much from a crop at a quarter of the cost; whole
    pictures teach it the borders.

    Args:
        pictures: the set.
        items: which of its pictures are trained.
        crop: size of the crops in pixels, a multiple of 8.
        whole_from: optimiser step from which pictures are whole, a quarter as many for each batch.
    """

    def __init__(self, pictures: PictureSet, items: list[int], crop: int = 64, whole_from: int | None = None) -> None:
        self.identity = f"{pictures.pictures_sha256}/{len(items)}"
        self.pixels = pictures.pictures()
        self.items = torch.tensor(items)
        self.crop, self.whole_from = crop, whole_from
        self.weights = torch.ones(len(items))
        self.size = self.pixels.shape[-1]
        self.whole = crop >= self.size
        if not self.whole:
            self._cumulative = self._places()

    def _places(self) -> Tensor:
        """(n, places) cumulative probability of each crop's place on a grid of 8 pixels, in proportion to its ink."""
        ink = torch.stack([(self.pixels[i].amin(dim=0) < 250).float() for i in self.items.tolist()])[:, None]
        share = torch.nn.functional.avg_pool2d(ink, self.crop, stride=8).flatten(1).double() + 0.05
        return torch.cumsum(share / share.sum(1, keepdim=True), dim=1)

    def batch(self, items: Tensor, draws: Draws) -> Batch:
        """``{"pictures": (B, 3, crop, crop) float32}``, channels last."""
        if self.whole or (self.whole_from is not None and draws.step >= self.whole_from):
            part = 1 if self.whole else max(1, (self.size // self.crop) ** 2)
            x = self.pixels[self.items[items[: max(1, len(items) // part)]]]
        else:
            u = draws.uniform("crop").cpu()
            place = torch.searchsorted(self._cumulative[items], u[:, None]).squeeze(1)
            side = (self.size - self.crop) // 8 + 1
            rows, columns = (place.clamp(max=side * side - 1) // side * 8).tolist(), (place % side * 8).tolist()
            chosen = self.items[items].tolist()
            x = torch.stack(
                [
                    self.pixels[i, :, r : r + self.crop, c : c + self.crop]
                    for i, r, c in zip(chosen, rows, columns, strict=True)
                ]
            )
        x = x.to(draws.device).float() / 127.5 - 1
        return {"pictures": x.contiguous(memory_format=torch.channels_last)}
