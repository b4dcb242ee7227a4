"""What trainings of denoisers watch: pictures of their set that were kept back, and whether drawn ones are copies."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from unnoise.core.autoencoder import Autoencoder
from unnoise.core.level import NoiseLevel
from unnoise.core.path import Path as NoisePath
from unnoise.data.folder import SIZE
from unnoise.data.store import PictureSet
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.engine.words import WORDS, read_vocabulary, words_of
from unnoise.objectives.denoising import DenoisingObjective
from unnoise.objectives.times import TimeSampler
from unnoise.pictures import from_bytes, to_bytes
from unnoise.study.distances import Figure
from unnoise.study.memorisation import copied, singled_out, thumbnails
from unnoise.training.data import Items
from unnoise.training.watch import FEWEST, KeptBack
from unnoise.weights.record import read_file, read_record

LONG = 24  # characters of a word in a note: a text without blanks is one
WATCHED = 64  # pictures on either side, at most
ENCODED = 32  # pictures of the usual size that pass an autoencoder at once, and as many pixels of another size
DRAWN = 16  # captions of pictures kept back that a preview draws
SPAN = 4.0  # log-SNR from -SPAN, where only the prompt tells what a picture will be, to SPAN, where it is all but there


class EvenLevels(TimeSampler):
    """Levels spread evenly in log-SNR from noise to data, so that each bin of a chart has as many."""

    def times(self, u: Tensor, path: NoisePath) -> Tensor:
        """Times of the path whose log-SNR lies u of the way from -SPAN to SPAN; (B,) float64."""
        sigma = torch.exp(SPAN - 2 * SPAN * u.double())
        return torch.as_tensor(path.time_of(NoiseLevel(torch.ones_like(sigma), sigma))).clamp(path.t_min, 1.0)


def at_once(side: int) -> int:
    """How many pictures of that side pass an autoencoder at once."""
    return max(1, ENCODED * SIZE**2 // side**2)


def kept_items(pictures: PictureSet) -> list[int]:
    """Up to 64 pictures that denoisers are not trained on, spread over those that are kept for choosing."""
    items = sorted(pictures.held_out("tier1", "validation") + pictures.held_out("tier2", "validation"))
    return spread(items, WATCHED)


def spread(items: Sequence[int], count: int) -> list[int]:
    """So many of the items, evenly chosen; all where they are fewer."""
    return [items[place * len(items) // count] for place in range(count)] if len(items) > count else list(items)


def kept_back(
    objective: DenoisingObjective, kept: Sequence[int], items: Sequence[int], feed: Callable[[list[int]], Items]
) -> KeptBack | None:
    """How a training of a denoiser is watched; None where nothing is kept back.

    Args:
        objective: what is trained. It is looked at with every level as often as every other and no prompt dropped.
        kept, items: the pictures kept back, and all that are trained, of which as many are looked at.
        feed: makes the data of some pictures.
    """
    if not kept:
        return None
    looked = copy.copy(objective)  # shares its modules, and so its weights
    looked.times, looked.drop = EvenLevels(), 0.0
    return KeptBack(looked, feed(list(kept)), feed(spread(items, len(kept))))


def prompts_of(pictures: PictureSet, items: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """The first captions of the first sixteen of these pictures, as much of each as the text tower reads."""
    return [tokenizer.cut(pictures.captions[i][0]) for i in items[:DRAWN]]


def copies(
    pictures: PictureSet, kept: Sequence[int], items: Sequence[int], autoencoder: Autoencoder
) -> Callable[[Tensor], Figure] | None:
    """The figure of a preview that ends with pictures drawn for ``prompts_of`` kept ones; None for fewer than five.

    Real pictures are sent through the autoencoder first, so that its grain is in both.
    """
    rows = list(kept[:DRAWN])
    if len(rows) < FEWEST:
        return None

    @cache
    def references() -> tuple[Tensor, Tensor]:
        """(thumbnails of the training pictures, how much real pictures that are kept back single one out)."""
        far = thumbnails(pictures.pictures(list(items)))
        device = next(autoencoder.parameters()).device
        with torch.inference_mode():
            again = []
            for some in torch.split(pictures.pictures(rows), at_once(pictures.side)):
                x = from_bytes(some).to(device).contiguous(memory_format=torch.channels_last)
                again.append(to_bytes(autoencoder.decode(autoencoder.encode(x).mean)).cpu())
        return far, singled_out(torch.cat(again), far)

    def figure(preview: Tensor) -> Figure:
        far, real = references()
        return copied(singled_out(preview[-len(rows) :], far), real)

    return figure


def taught_words(folder: Path) -> frozenset[str] | None:
    """The words that a model folder has been taught; None where it has no list of them."""
    record = read_record(folder)
    if WORDS not in record["files"]:
        return None
    return read_vocabulary(read_file(folder, record, WORDS))


def strange_to(vocabulary: frozenset[str] | None, captions: Sequence[Sequence[str]], limit: int = 12) -> list[str]:
    """A line on the words of captions that a model has never been taught; none where it knows all, or has no such list.

    Args:
        captions: of each picture, the most frequent strange words first in the line.
    """
    if vocabulary is None:
        return []
    pictures: dict[str, int] = {}
    for each in captions:
        for word in {word for caption in each for word in words_of(caption)} - vocabulary:
            pictures[word] = pictures.get(word, 0) + 1
    if not pictures:
        return []
    often = sorted(pictures, key=lambda word: (-pictures[word], word))
    words = ", ".join(
        f"{word if len(word) <= LONG else f'{word[:LONG]}...'} ({pictures[word]})" for word in often[:limit]
    )
    more = f" and {len(often) - limit:,} more" if len(often) > limit else ""
    return [
        f"words that the model has never been taught, and in how many pictures they stand: {words}{more}; it learns "
        "them from these alone"
    ]
