"""Pictures that come by once a pass, out of tars: a training's data without an index."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.core import checks
from unnoise.core.autoencoder import Autoencoder
from unnoise.core.noise import generator
from unnoise.core.objective import Batch, Draws
from unnoise.data.feeds import trim
from unnoise.data.intake import Item, LeftOut, Quarantine
from unnoise.data.read_tar import read_tar
from unnoise.data.square import Squarer
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.errors import UnnoiseError
from unnoise.pictures import from_bytes

PATIENCE = 3  # passes without a picture that can be used
Collate = Callable[[Tensor, Sequence[Sequence[str]], Draws], Batch]


class BufferItem(NamedTuple):
    """A picture in the buffer: the shard that it is from, its number there, and its bytes with its captions."""

    shard: int
    number: int
    item: Item


class TarStream:
    """Pictures from tars, one pass after another, for trainings of sets that neither memory nor an index holds.

    Each pass visits the shards in an order of its own and reads each from its first picture to its last. A buffer mixes
    what comes by: a step takes pictures out of it at random, and what comes next takes their places. Both are functions
    of the seed and of counts, so that a position is a few numbers: how far the passes have come, and which pictures lie
    in the buffer. A training that is resumed reads those again and goes on to the same bits.

    It is a ``TrainData``. Pictures that cannot be used are passed over; captions are those of ``read_tar``.

    Args:
        shards: uncompressed tars.
        collate: makes a batch of pictures, uint8 (B, 3, H, W), and the captions of each; ``captioned`` makes one.
        squarer: makes pictures of one size.
        seed: of the order.
        buffer: how many pictures are mixed, encoded as they are in the tars.

    Raises:
        UnnoiseError: a shard is not there, or none is named.
    """

    def __init__(
        self, shards: Sequence[Path], collate: Collate, squarer: Squarer, seed: int = 0, buffer: int = 1000
    ) -> None:
        self.shards = [Path(shard) for shard in shards]
        missing = [shard for shard in self.shards if not shard.is_file()]
        if missing or not shards:
            raise UnnoiseError(f"there is no tar {missing[0] if missing else 'named'}", "name uncompressed tar files")
        self.collate, self.squarer = collate, squarer
        self.seed, self.buffer = checks.seed("seed", seed), checks.whole("buffer", buffer, 1, 10_000_000)
        sizes = [(shard.name, shard.stat().st_size) for shard in self.shards]
        how = [sizes, squarer.size, squarer.fit, squarer.background, self.seed, self.buffer]
        self.identity = f"tars/{hashlib.sha256(repr(how).encode()).hexdigest()}"
        self._step, self._rows = -1, list[tuple[Tensor, Sequence[str]]]()
        self._go(torch.zeros(4, dtype=torch.long), [])
        self._before = self._position()

    def rows(self, step: int, batch: int) -> int:
        """As of ``TrainData``: each step has all its rows."""
        return batch

    def batch(self, draws: Draws) -> Batch:
        """As of ``TrainData``: what ``collate`` makes of the rows.

        Raises:
            UnnoiseError: no picture in any shard can be used.
            ValueError: the step is over.
        """
        if draws.step < self._step:
            raise ValueError(f"step {draws.step} has gone by: this is step {self._step}")
        if draws.step > self._step:
            self._before = self._position()
            self._step, self._rows = draws.step, [self._next() for _ in range(draws.batch)]
        rows = self._rows[draws.rows]
        return self.collate(torch.stack([pixels for pixels, _ in rows]), [texts for _, texts in rows], draws)

    def state(self, step: int) -> dict[str, Tensor]:
        """As of ``TrainData``: "position", the counts of passes, shards, pictures and pictures taken, and "buffer",
        (buffer, 2) which pictures are in it, -1 where there is none."""
        return self._before if step <= self._step else self._position()

    def load(self, step: int, state: Mapping[str, Tensor]) -> None:
        """As of ``TrainData``.

        Raises:
            KeyError: the state lacks something.
            ValueError: it names pictures that are not there.
        """
        places = [(int(shard), int(number)) for shard, number in state["buffer"] if shard >= 0]
        entries: dict[tuple[int, int], BufferItem] = {}
        for shard in sorted({shard for shard, _ in places}):
            numbers = {number for of, number in places if of == shard}
            for entry in itertools.islice(self._read(shard), max(numbers) + 1):
                if entry.number in numbers:
                    entries[shard, entry.number] = entry
        if len(entries) < len(set(places)):
            raise ValueError("the tars lack pictures that were in the buffer")
        self._step, self._rows = step - 1, []
        self._go(state["position"], [entries[each] for each in places])
        self._before = self._position()

    def _go(self, position: Tensor, entries: list[BufferItem]) -> None:
        self._pass, self._place, self._number, self._picks = (int(count) for count in position)
        self._entries, self._source = entries, self._coming()

    def _position(self) -> dict[str, Tensor]:
        buffer = torch.full((self.buffer, 2), -1)
        for row, entry in enumerate(self._entries):
            buffer[row] = torch.tensor([entry.shard, entry.number])
        return {"position": torch.tensor([self._pass, self._place, self._number, self._picks]), "buffer": buffer}

    def _read(self, shard: int) -> Iterator[BufferItem]:
        """The pictures of a shard from its first on."""
        items = read_tar(self.shards[shard], self.shards[shard].name, Quarantine()).items
        return (BufferItem(shard, number, item) for number, item in enumerate(items))

    def _coming(self) -> Iterator[BufferItem]:
        """All pictures from where the stream is, without an end, as long as a pass has any."""
        empty = self._number == 0 and self._place == 0
        while True:
            order = torch.randperm(len(self.shards), generator=generator("shards", self.seed, self._pass)).tolist()
            while self._place < len(order):
                for entry in itertools.islice(self._read(order[self._place]), self._number, None):
                    self._number, empty = entry.number + 1, False
                    yield entry
                self._place, self._number = self._place + 1, 0
            if empty:
                return
            self._pass, self._place, empty = self._pass + 1, 0, True

    def _next(self) -> tuple[Tensor, Sequence[str]]:
        """The next picture that can be used, uint8 (3, H, W), and its captions."""
        import numpy as np

        failures, began = 0, self._pass
        while failures <= self.buffer or self._pass <= began + PATIENCE:
            self._entries += itertools.islice(self._source, self.buffer - len(self._entries))
            if not self._entries:
                break
            pick = generator("taken", self.seed, self._picks)
            place = int(torch.randint(len(self._entries), (), generator=pick))
            self._picks += 1
            entry, self._entries[place] = self._entries[place], self._entries[-1]
            self._entries.pop()
            try:
                picture = self.squarer(entry.item.data).picture
            except LeftOut:
                failures += 1
                continue
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1), entry.item.captions
        raise UnnoiseError(
            "no picture in the tars can be used", "see `unnoise data folder` for what is wrong with them"
        )


def captioned(autoencoder: Autoencoder, tokenizer: Tokenizer) -> Collate:
    """Batches for ``DenoisingObjective`` with its text tower: "x0" (B, C, h, w) drawn from the autoencoder's posterior,
    "token_ids" (B, L) of one caption of each picture, chosen anew each time, and "empty_ids" (L,)."""
    empty = tokenizer([""])[0]

    @torch.no_grad()
    def collate(pixels: Tensor, captions: Sequence[Sequence[str]], draws: Draws) -> Batch:
        x = from_bytes(pixels.to(draws.device)).contiguous(memory_format=torch.channels_last)
        posterior = autoencoder.encode(x)
        x0 = posterior.mean + posterior.std * draws.normal("latent", *posterior.mean.shape[1:])
        places = draws.on("cpu").uniform("caption").tolist()
        texts = [each[int(u * len(each))] if each else "" for each, u in zip(captions, places, strict=True)]
        ids = trim(tokenizer([tokenizer.cut(caption) for caption in texts]), int(empty[-1]))
        return {"x0": x0, "token_ids": ids.to(draws.device), "empty_ids": empty[: ids.shape[1]].to(draws.device)}

    return collate
