"""How a step is cut into micro-batches changes what is computed at once, and not what is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.small import build
from training.toy import toy, trainer
from unnoise.core.objective import Batch, Draws
from unnoise.data.feeds import CropFeed
from unnoise.training.parts import micro_batches
from unnoise.training.settings import TrainSettings
from unnoise.training.trainer import Trainer

BATCH = 32  # of crops of 32 pixels: two whole pictures of 128


class Old(CropFeed):
    """As it was: each micro-batch kept a sixteenth of its own pictures, and at least one."""

    def rows(self, step: int, batch: int) -> int:
        return batch

    def batch(self, items: Tensor, draws: Draws) -> Batch:
        found = super().batch(items, draws)
        if not self.are_whole(draws.step):
            return found
        return {"pictures": found["pictures"][: max(1, len(items) // 16)]}


def step(world: Path, tmp_path: Path, micro: int, feed: type[CropFeed], whole: float) -> tuple[float, Tensor, int]:
    """(loss, gradient, pictures seen) of a training's first step, in micro-batches of so many samples."""
    sizes = {"batch": BATCH, "samples": 4 * BATCH, "micro_batch": micro}
    training = build("emoji-autoencoder", world, "--crop", "32", "--whole", str(whole), **sizes)
    training.data.__class__ = feed
    seen: list[int] = []
    loss = training.objective.loss

    def counted(batch: Batch, draws: Draws) -> Any:
        seen.append(len(batch["pictures"]))
        return loss(batch, draws)

    training.objective.loss = counted  # type: ignore[method-assign]
    trained = Trainer(training.objective, training.data, training.settings, tmp_path)
    done = trained._backward(training.objective.phases()[0])
    gradient = torch.cat([p.grad.flatten() for p in training.objective.parameters() if p.grad is not None])
    return float(done.total), gradient, sum(seen)


@pytest.mark.parametrize("whole", [0.0, 1.0])
def test_micro_batches_of_whole_pictures_and_crops_train_the_same(world: Path, tmp_path: Path, whole: float) -> None:
    total, gradient, seen = step(world, tmp_path, 0, CropFeed, whole)
    assert seen == (2 if whole else BATCH)
    for parts in (2, 4, 16, 32):
        found = step(world, tmp_path, BATCH // parts, CropFeed, whole)
        assert found[2] == seen
        assert found[0] == pytest.approx(total, rel=1e-5)
        assert float((found[1] - gradient).norm() / gradient.norm()) < 1e-4


def test_the_old_way_trained_other_pictures(world: Path, tmp_path: Path) -> None:
    """The control: with the fault put back the comparison sees it."""
    gradient, seen = step(world, tmp_path, 0, CropFeed, 1.0)[1:]

    class Loose(Old):
        """The noise was cut to the pictures by the loss."""

        def batch(self, items: Tensor, draws: Draws) -> Batch:
            found = super().batch(items, draws)
            start = draws.rows.start
            draws.rows = slice(start, start + len(found["pictures"]))
            return found

    found = step(world, tmp_path, BATCH // 4, Loose, 1.0)
    assert (seen, found[2]) == (2, 4)
    assert float((found[1] - gradient).norm() / gradient.norm()) > 0.01


def test_a_step_of_fewer_rows_is_cut_at_the_same_shares() -> None:
    settings = TrainSettings(samples=8, batch=8, micro_batch=2)
    assert list(micro_batches(settings, 8)) == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
    assert list(micro_batches(settings, 2)) == [slice(0, 1), slice(1, 2)]
    assert list(micro_batches(settings, 1)) == [slice(0, 1)]


def test_the_loss_of_a_step_is_that_of_its_rows(tmp_path: Path) -> None:
    """Micro-batches of unlike sizes count by their rows."""
    whole, split = trainer(tmp_path, micro_batch=0), trainer(tmp_path, micro_batch=1)
    for each in (whole, split):
        each.data.rows = lambda step, batch: 3  # type: ignore[method-assign]
        each.objective.eval()
    losses = [each._backward(toy().objective.phases()[0]._replace(loss=each.objective.loss)) for each in (whole, split)]
    assert float(losses[0].total) == pytest.approx(float(losses[1].total), rel=1e-6)
    assert len(losses[0].per_sample) == len(losses[1].per_sample) == 3
