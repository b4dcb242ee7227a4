"""How a step is cut into micro-batches, in one process or several, and its loss put together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unnoise.core.objective import Loss
from unnoise.errors import UnnoiseError
from unnoise.training import ranks
from unnoise.training.settings import TrainSettings


def micro_batches(settings: TrainSettings, total: int) -> Iterator[slice]:
    """The rows of each micro-batch of this process, none of them empty: as many in each process.

    A step with fewer rows than samples is cut at the same shares of it: rows that cost more fill no more memory.

    Args:
        total: rows of the step, up to the settings' batch.

    Raises:
        UnnoiseError: they do not divide among the processes.
    """
    rank, count = ranks.place()
    batch, mine = settings.batch, settings.batch // count
    size = settings.micro_batch or mine
    if batch % count or mine % size or total % count:
        raise UnnoiseError(
            f"a batch of {batch}, {total} rows in this step, does not divide among {count} processes and their "
            "micro-batches",
            "choose a larger batch, or a micro_batch that divides each process's part of it",
        )
    for start in range(rank * mine, (rank + 1) * mine, size):
        rows = slice(start * total // batch, (start + size) * total // batch)
        if rows.start < rows.stop:
            yield rows


def mean_loss(parts: Sequence[Loss], counts: Sequence[int], device: torch.device) -> Loss:
    """The loss of all rows from those of some, so many in each part; scalars are means over all processes."""

    def join(values: Sequence[Tensor | None]) -> Tensor | None:
        return None if values[0] is None else torch.cat([v for v in values if v is not None])

    def mean(values: Sequence[Tensor]) -> Tensor:
        each = torch.stack([value.detach() for value in values])
        shares = torch.tensor(counts, dtype=each.dtype, device=each.device) / sum(counts)
        return each.new_tensor(ranks.mean(float((each * shares).sum()), device))

    metrics = {key: mean([part.metrics[key] for part in parts]) for key in parts[0].metrics}
    total = mean([part.total for part in parts])
    return Loss(total, join([p.per_sample for p in parts]), join([p.log_snr for p in parts]), metrics)
