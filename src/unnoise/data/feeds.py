"""Feeds of trainings: batches of pictures, captions and latents from a picture set."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from unnoise.core.condition import Condition
from unnoise.core.objective import Batch, Draws
from unnoise.data.store import PictureSet
from unnoise.encoders.tokenizer import Tokenizer, between_words
from unnoise.errors import UnnoiseError
from unnoise.pictures import from_bytes

log = logging.getLogger(__name__)


def trained(pictures: PictureSet, by: Literal["autoencoder", "denoiser"]) -> list[int]:
    """Indices of the pictures that train the autoencoder, or the denoiser and the text tower.

    Raises:
        UnnoiseError: there are none.
    """
    items = pictures.select(by)
    if not items:
        raise UnnoiseError(f"the picture set at {pictures.path} has nothing to train on", "build or name another one")
    return items


class CropFeed:
    """Pictures in [-1, 1] for an autoencoder: square crops that hold ink, and whole pictures toward the end.

    Half of such a picture is white, and a convolution learns as much from a crop at a quarter of the cost; whole
    pictures teach it the borders.

    Args:
        pictures: the set.
        items: which of its pictures are trained.
        crop: size of the crops in pixels, a multiple of 8.
        whole_from: optimiser step from which pictures are whole, with a quarter as many in each batch.
    """

    def __init__(self, pictures: PictureSet, items: list[int], crop: int = 64, whole_from: int | None = None) -> None:
        self.identity = f"{pictures.pictures_sha256}/{hashlib.sha256(repr(items).encode()).hexdigest()}"
        self.pixels = pictures.pictures()
        self.items = torch.tensor(items)
        if crop < 8 or crop % 8:
            raise UnnoiseError(f"crops of {crop} pixels cannot be folded into latents", "choose a multiple of 8")
        self.crop, self.whole_from = crop, whole_from
        self.weights = torch.tensor([float(pictures.repeats[i]) for i in items])
        self.size = self.pixels.shape[-1]
        self.whole = crop >= self.size
        if not self.whole:
            self._cumulative = self._places()

    def _places(self) -> Tensor:
        """(n, places) cumulative probability of a crop's places on a grid of 8 pixels, in proportion to their ink."""
        ink = torch.stack([(self.pixels[i].amin(dim=0) < 250).float() for i in self.items.tolist()])[:, None]
        share = torch.nn.functional.avg_pool2d(ink, self.crop, stride=8).flatten(1).double() + 0.05
        return torch.cumsum(share / share.sum(1, keepdim=True), dim=1)

    def are_whole(self, step: int) -> bool:
        """Whether a step sees whole pictures."""
        return self.whole or (self.whole_from is not None and step >= self.whole_from)

    def rows(self, step: int, batch: int) -> int:
        """How many pictures a step has: where crops have given way to whole ones, as many as hold as many pixels."""
        if self.whole or not self.are_whole(step):
            return batch
        return max(1, batch // (self.size // self.crop) ** 2)

    def batch(self, items: Tensor, draws: Draws) -> Batch:
        """``{"pictures": (B, 3, crop, crop) float32}``, channels last; whole ones from ``whole_from`` on."""
        if self.are_whole(draws.step):
            x = self.pixels[self.items[items]]
        else:
            u = draws.on("cpu").uniform("crop")
            place = torch.searchsorted(self._cumulative[items], u[:, None]).squeeze(1)
            side = (self.size - self.crop) // 8 + 1
            rows, columns = (place.clamp(max=side * side - 1) // side * 8).tolist(), (place % side * 8).tolist()
            places = self.items[items].tolist()
            x = torch.stack(
                [
                    self.pixels[i, :, r : r + self.crop, c : c + self.crop]
                    for i, r, c in zip(places, rows, columns, strict=True)
                ]
            )
        x = x.to(draws.device).float() / 127.5 - 1
        return {"pictures": x.contiguous(memory_format=torch.channels_last)}


class CaptionFeed:
    """Pictures in [-1, 1] with the token ids of one of their captions, chosen each time; for contrastive pairs."""

    def __init__(self, pictures: PictureSet, items: list[int], tokenizer: Tokenizer) -> None:
        self.identity = f"{pictures.sha256}/{len(items)}"
        self.pixels, self.items = pictures.pictures(), torch.tensor(items)
        self.captions = CaptionIds([pictures.captions[i] for i in items], tokenizer)
        self.same = torch.tensor([pictures.identical[i] for i in items])
        self.weights = weights_of(pictures, items)

    def batch(self, items: Tensor, draws: Draws) -> Batch:
        """ "pictures" (B, 3, H, W), "token_ids" (B, L), "same" (B,)."""
        x = self.pixels[self.items[items]].to(draws.device).float() / 127.5 - 1
        ids = trim(self.captions(items, self.choice(draws.on("cpu").uniform("caption"))), self.captions.end)
        return {
            "pictures": x.contiguous(memory_format=torch.channels_last),
            "token_ids": ids.to(draws.device),
            "same": self.same[items].to(draws.device),
        }

    def choice(self, u: Tensor) -> Tensor:
        """Which caption of a picture to read, as a position in its list from 0 to 1, given uniform numbers."""
        return u


class Encoded:
    """The latents of pictures, computed when they are needed: for encoders so cheap that keeping their output costs
    more, in pixel space four bytes for each byte of a picture.

    Args:
        pixels: (N, 3, H, W) uint8.
        encode: from floats (B, 3, H, W) in [-1, 1], on any device, to latents (B, C, h, w).

    Attributes:
        shape: (N, C, h, w), as the tensor of all latents would have.
    """

    def __init__(self, pixels: Tensor, encode: Callable[[Tensor], Tensor]) -> None:
        self.pixels, self.encode = pixels, encode
        self.shape = (len(pixels), *encode(from_bytes(pixels[:1])).shape[1:])

    def __getitem__(self, items: Tensor) -> Tensor:
        return self.encode(from_bytes(self.pixels[items]))

    def only(self, items: list[int]) -> Encoded:
        """The latents of some of the pictures."""
        return Encoded(self.pixels[items], self.encode)


class LatentFeed:
    """Latents with one of their captions; for training denoisers.

    Args:
        mean, std: (N, C, h, w) posteriors of all pictures of the set; without std, the latents themselves.
        features: encoded captions, if the text tower is not trained: a Condition with a row for each row of
            ``CaptionIds.unique``; with None batches hold token ids.
    """

    def __init__(
        self,
        pictures: PictureSet,
        items: list[int],
        tokenizer: Tokenizer,
        mean: Tensor | Encoded,
        std: Tensor | None,
        features: Condition | None = None,
    ) -> None:
        self.identity = f"{pictures.sha256}/{len(items)}"
        self.mean = mean.only(items) if isinstance(mean, Encoded) else mean[items]
        self.std = None if std is None else std[items]
        self.captions = CaptionIds([pictures.captions[i] for i in items], tokenizer)
        self.weights = weights_of(pictures, items)
        self.empty = tokenizer([""])[0]
        self.features = features

    def batch(self, items: Tensor, draws: Draws) -> Batch:
        """ "x0" (B, C, h, w) drawn from the posterior, and token ids with the empty prompt's, or conditions."""
        x0 = self.latents(items, draws, "latent")
        u = draws.on("cpu").uniform("caption")
        if self.features is not None:
            rows = self.captions.rows(items, u)
            cond, empty = self.features.rows(rows), self.features.rows(slice(-1, None))
            return {"x0": x0, "condition": cond.to(draws.device), "empty": empty.to(draws.device)}
        ids = trim(self.captions(items, u), self.captions.end)
        return {"x0": x0, "token_ids": ids.to(draws.device), "empty_ids": self.empty[: ids.shape[1]].to(draws.device)}

    def latents(self, items: Tensor, draws: Draws, stream: str) -> Tensor:
        """(B, C, h, w) latents of the items, drawn from their posteriors with the noise of that stream."""
        mean = self.mean[items].to(draws.device)
        if self.std is None:
            return mean
        return mean + self.std[items].to(draws.device) * draws.normal(stream, *self.mean.shape[1:])


class CaptionIds:
    """The token ids of every caption of every picture.

    Attributes:
        unique: (M, L) ids of all captions, one after the other; the rows of a picture are adjacent.
        end: the id that ends a prompt.
    """

    def __init__(self, captions: list[list[str]], tokenizer: Tokenizer) -> None:
        counts = torch.tensor([len(each) for each in captions])
        self.unique = rows_of([caption for each in captions for caption in each], tokenizer)
        self.first, self.counts = torch.cumsum(counts, 0) - counts, counts
        self.end = int(self.unique[0, -1])

    def rows(self, items: Tensor, u: Tensor) -> Tensor:
        """The row of one caption of each item, chosen by uniform numbers u."""
        return self.first[items] + (u * self.counts[items]).floor().long()

    def __call__(self, items: Tensor, u: Tensor) -> Tensor:
        """(B, L) ids of one caption of each item."""
        return self.unique[self.rows(items, u)]


def rows_of(captions: Sequence[str], tokenizer: Tokenizer) -> Tensor:
    """(M, L) ids of captions; those that are too long for the text tower lose their end, with a warning.

    A prompt is never cut, since its author can shorten it. Captions of other tools are often longer than a tower reads.
    """
    short = [tokenizer.cut(caption) for caption in captions]
    cuts = [(caption, part) for caption, part in zip(captions, short, strict=True) if part != caption]
    if cuts:
        within = sum(not between_words(caption, len(part)) for caption, part in cuts)
        log.warning(
            "%d of %d captions are longer than the %d tokens that the text tower reads; their ends are cut off, "
            "%d after a word or tag and %d inside of one; the first is read as %r",
            len(cuts),
            len(captions),
            tokenizer.room,
            len(cuts) - within,
            within,
            cuts[0][1],
        )
    return tokenizer(short)


def weights_of(pictures: PictureSet, items: list[int]) -> Tensor:
    """(n,) sampling weights of the items: those of their families, times each item's number of repeats."""
    repeats = torch.tensor([float(pictures.repeats[i]) for i in items])
    return family_weights([pictures.family[i] for i in items]) * repeats


def family_weights(families: list[str]) -> Tensor:
    """(N,) sampling weights, 1 / sqrt(size of the family): variants of one thing are sampled less often each."""
    sizes = Counter(families)
    return torch.tensor([sizes[family] ** -0.5 for family in families])


def trim(ids: Tensor, end: int) -> Tensor:
    """Rows of ids without the columns in which every row has ended: the same prompts at a lower cost.

    Lengths are multiples of eight, so that there are few: networks are compiled for each.
    """
    longest = int((ids == end).int().argmax(dim=1).max()) + 1
    return ids[:, : min(ids.shape[1], -(-longest // 8) * 8)]
