"""What a training looks at while it runs: the loss on pictures kept back, with fixed noise, and whether it learns.

The loss of a step is noisy: other pictures, other noise, other levels each time. Here they are the same at every look,
so that two looks differ by the weights alone, and the change of each picture's loss can be set against its spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise.core.objective import Draws, Loss, Objective
from unnoise.training.data import Items
from unnoise.training.report import by_level
from unnoise.training.settings import TrainSettings
from unnoise.training.trainer import Trainer

ROWS = 64  # at least so many losses a look and side: with 5 bins of log-SNR a dozen in each
NEVER = -1  # the step whose noise is used: none that is ever trained
FEWEST = 5  # pictures on a side, below which a change cannot be told from chance
LEARNT, SURE = 2.0, 3.0  # standard errors by which it must be better to be called learnt, and worse to be called worse
TENTH = 0.1  # a loss that fell by so much is called learnt, too, however far the pictures disagree


@dataclass(frozen=True)
class KeptBack:
    """What is looked at.

    Attributes:
        objective: of the very modules that are trained; its first phase's loss is taken, by row and level. Usually the
            training's own with levels spread evenly and no prompt dropped.
        kept: pictures that are not trained.
        seen: as many that are: where these get better and the others do not, pictures are learnt by heart.
    """

    objective: Objective
    kept: Items
    seen: Items


class Look(NamedTuple):
    """One look.

    Attributes:
        samples: trained before it.
        kept: (n,) mean unweighted loss of each picture kept back, over levels from noise to data.
        seen: (m,) the same of pictures that are trained.
        levels: of the pictures kept back, the mean loss in each bin of log-SNR.
    """

    samples: int
    kept: Tensor
    seen: Tensor
    levels: Mapping[str, float]

    def record(self) -> dict[str, Any]:
        """As it stands in a line of the metrics; ``restored`` reads it."""
        return {
            "kept-back/loss": float(self.kept.mean()),
            "kept-back/trained": float(self.seen.mean()),
            **{f"kept-back/log-snr {name}": value for name, value in self.levels.items()},
            "kept-back/each": [round(value, 6) for value in self.kept.tolist()],
            "kept-back/each trained": [round(value, 6) for value in self.seen.tolist()],
        }


def restored(row: Mapping[str, Any]) -> Look | None:
    """The look in a line of the metrics; None where it holds none, or one that cannot be read."""
    try:
        kept, seen = (torch.tensor(row[f"kept-back/{name}"], dtype=torch.float64) for name in ("each", "each trained"))
        samples = int(row["samples"])
    except (KeyError, TypeError, ValueError):
        return None
    name = "kept-back/log-snr "
    return Look(samples, kept, seen, {key.removeprefix(name): row[key] for key in row if key.startswith(name)})


def look(trainer: Trainer, what: KeptBack) -> Look:
    """The losses now, of the averaged weights that make the model; it changes nothing that is trained or drawn."""
    with trainer.averaged(also=what.objective.to(trainer.device)):
        kept, levels = losses(trainer, what.objective, what.kept)
        seen, _ = losses(trainer, what.objective, what.seen)
    return Look(trainer.samples, kept, seen, levels)


def losses(trainer: Trainer, objective: Objective, data: Items) -> tuple[Tensor, dict[str, float]]:
    """((n,) mean loss of each item, mean loss in each bin of log-SNR), with noise that is the same at every look."""
    count = len(data.weights)
    passes = -(-ROWS // count)
    rows, size = count * passes, trainer.settings.micro_batch or trainer.settings.batch
    per_row, log_snr = [], []
    for start in range(0, rows, size):
        draws = Draws(0, NEVER, rows, slice(start, start + size), trainer.device)
        items = torch.arange(start, min(start + size, rows)) % count
        with torch.autocast(trainer.device.type, trainer.dtype, enabled=trainer.dtype != torch.float32):
            loss = objective.phases()[0].loss(data.batch(items, draws), draws)
        if loss.per_sample is None or loss.log_snr is None:
            raise TypeError(
                f"the loss of {type(objective).__name__} has no rows or levels, so that it cannot be watched"
            )
        per_row.append(loss.per_sample.double().cpu())
        log_snr.append(loss.log_snr.double().cpu())
    values = torch.cat(per_row)  # (passes n,), item by item, then the next pass
    levels = by_level(Loss(values.mean(), values, torch.cat(log_snr)))
    return values.reshape(passes, count).mean(0), levels


def rise(before: Tensor, after: Tensor) -> float:
    """By how many standard errors the mean of (n,) losses rose, picture by picture; below 0 it fell.

    Student's paired t. Pictures differ far more from one another than weights make a difference; that cancels here.
    """
    change = after - before
    error = change.std() / len(change) ** 0.5
    if error == 0:
        return float(change.mean().sign()) * float("inf") if change.mean() else 0.0
    return float(change.mean() / error)


def learnt(before: Tensor, after: Tensor) -> bool:
    """Whether (n,) losses fell by more than chance would explain, or by so much that no one would call it nothing."""
    return rise(before, after) <= -LEARNT or float(after.mean()) <= (1 - TENTH) * float(before.mean())


class Word(NamedTuple):
    """A remark on a training: ``kind`` of fixed words, and a sentence with the reason and what to try."""

    kind: str
    text: str


def early_word(looks: Sequence[Look], settings: TrainSettings, total: int | None = None) -> Word | None:
    """What is wrong where a training is not learning; None while all is well. It will see ``total`` samples, by
    default those of the settings.

    A rate that is too high is named at once, all else after the warm-up and a tenth of the training. Worse means by
    three standard errors (one look in three hundred, were nothing changing, for twenty pictures); learnt means
    better by two, or by a tenth. Fewer than five pictures on a side say nothing.
    """
    if len(looks) < 2 or min(len(looks[-1].kept), len(looks[-1].seen)) < FEWEST:
        return None
    first, last = looks[0], looks[-1]
    if not bool(torch.isfinite(torch.cat([last.kept, last.seen])).all()):
        return Word("not finite", f"the loss on pictures kept back is no number any more: {_rates(settings, 1 / 3)}")
    kept, seen = rise(first.kept, last.kept), rise(first.seen, last.seen)
    if kept > SURE and seen > SURE:
        worse = f"it gets worse, on pictures that it trains on too ({_change(first.seen, last.seen)})"
        return Word("too fast", f"{worse}: the rate is too high; {_rates(settings, 1 / 3)}")
    total = settings.samples if total is None else total
    if last.samples < (min(settings.warmup, total / 10) if settings.minutes else settings.warmup) + total / 10:
        return None
    best = min(looks, key=lambda each: float(each.kept.mean()))
    gained = learnt(first.kept, best.kept)
    if gained and rise(best.kept, last.kept) > SURE and last.seen.mean() < best.seen.mean():
        return Word(
            "by heart",
            f"since {best.samples:,} samples it gets worse on pictures kept back ({_change(best.kept, last.kept)}) and "
            "better on those it trains on: it learns them by heart; stop there, or add pictures",
        )
    if learnt(first.kept, last.kept):
        return None
    seen_change, kept_change = _change(first.seen, last.seen), _change(first.kept, last.kept)
    change = f"the loss went {seen_change} on pictures it trains on, {kept_change} "
    if learnt(first.seen, last.seen):
        hint = "do the captions say what is to be seen, and have the pictures anything in common? Add some, or stop"
        return Word("nothing general", f"what it learns does not hold for pictures kept back: {change}on these; {hint}")
    hint = f"{_rates(settings, 3)}, and see that captions and pictures belong together"
    return Word("nothing", f"nothing is learnt that shows: {change}on those kept back; {hint}")


def _change(before: Tensor, after: Tensor) -> str:
    return f"from {float(before.mean()):.3f} to {float(after.mean()):.3f}"


def _rates(settings: TrainSettings, factor: float) -> str:
    return f"try --train.rate {settings.rate * factor:.2g} --train.matrix-rate {settings.matrix_rate * factor:.2g}"


class Watcher:
    """The looks of one training, those before it was resumed among them; each kind of remark comes once.

    Args:
        trainer: at the sample it goes on from.
        what: what is looked at.
        rows: the lines of the metrics up to there.
    """

    def __init__(self, trainer: Trainer, what: KeptBack, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.trainer, self.what = trainer, what
        self.looks = [each for row in rows if (each := restored(row)) is not None]
        numbers = range(len(self.looks) + 1)
        words = (early_word(self.looks[:number], trainer.settings, trainer.expected) for number in numbers)
        self.named = {word.kind for word in words if word is not None}

    def look(self) -> tuple[Look, Word | None]:
        """(the look, a word if there is a new one)."""
        self.looks.append(look(self.trainer, self.what))
        word = early_word(self.looks, self.trainer.settings, self.trainer.expected)
        if word is None or word.kind in self.named:
            return self.looks[-1], None
        self.named.add(word.kind)
        return self.looks[-1], word
