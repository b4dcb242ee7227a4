"""CLIP's loss, with its target shared among rows that are equally right."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.condition import Condition
from unnoise.core.objective import Draws
from unnoise.encoders.pair import Pair, PairConfig
from unnoise.objectives.contrastive import ContrastiveObjective

DRAWS = Draws(0, 0, 4, slice(None))


class Text(nn.Module):
    """The vector of a row is a table's, by its first id."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, ids: Tensor) -> Condition:
        return Condition(pooled=self.table[ids[:, 0]])


class Image(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def objective(table: Tensor, scale: float = 2.0) -> ContrastiveObjective:
    width = table.shape[1]
    pair = Pair(PairConfig(width, width, width))
    pair.text.weight.data = pair.image.weight.data = torch.eye(width)
    pair.log_scale.data.fill_(scale)
    return ContrastiveObjective(Text(table), Image(), pair)


def batch(ids: list[int], same: list[int], pictures: Tensor) -> dict[str, Tensor]:
    return {"token_ids": torch.tensor(ids)[:, None], "same": torch.tensor(same), "pictures": pictures}


def vectors(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed))


def test_distinct_rows_are_cross_entropy_both_ways() -> None:
    table, pictures = vectors(4), vectors(4, 1)
    loss = objective(table).loss(batch([0, 1, 2, 3], [0, 1, 2, 3], pictures), DRAWS)
    scores = torch.exp(torch.tensor(2.0)) * F.normalize(table) @ F.normalize(pictures).T
    wanted = (F.cross_entropy(scores, torch.arange(4)) + F.cross_entropy(scores.T, torch.arange(4))) / 2
    assert float(loss.total.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    assert loss.per_sample is not None
    assert float(loss.per_sample.mean()) == pytest.approx(float(wanted.detach()), rel=1e-6)


@pytest.mark.parametrize(
    ("ids", "same"), [([0, 1, 2, 3], [7, 7, 2, 3]), ([0, 0, 2, 3], [0, 1, 2, 3]), ([0, 0, 2, 3], [0, 1, 1, 3])]
)
def test_equal_pictures_and_equal_captions_share_the_target(ids: list[int], same: list[int]) -> None:
    table, pictures = vectors(4), vectors(4, 1)
    loss = objective(table).loss(batch(ids, same, pictures), DRAWS)
    scores = torch.exp(torch.tensor(2.0)) * F.normalize(table[ids]) @ F.normalize(pictures).T
    wanted = 0.0
    for i in range(4):
        right = [j for j in range(4) if same[i] == same[j] or ids[i] == ids[j]]
        for logits in (scores[i], scores[:, i]):
            wanted -= sum(float(logits.log_softmax(0)[j]) for j in right) / len(right) / 8
    assert float(loss.total.detach()) == pytest.approx(wanted, rel=1e-5)


def test_twins_are_not_pushed_apart() -> None:
    """With all rows right for all, equal scores are best and have no gradient; called wrong, they have one."""
    table, pictures = torch.ones(4, 5), torch.ones(4, 5)
    for same, pushed in (([1, 1, 1, 1], False), ([0, 1, 2, 3], False)):
        trained = objective(table.clone())
        trained.loss(batch([0, 0, 0, 0], same, pictures), DRAWS).total.backward()
        assert bool((trained.text.table.grad.abs() > 1e-6).any()) == pushed


def test_found_counts_any_right_answer() -> None:
    table = torch.eye(5)[:4]
    pictures = torch.eye(5)[[1, 0, 2, 3]]  # the first two are exchanged
    assert float(objective(table).loss(batch([0, 1, 2, 3], [0, 1, 2, 3], pictures), DRAWS).metrics["found"]) == 0.5
    assert float(objective(table).loss(batch([0, 1, 2, 3], [0, 0, 2, 3], pictures), DRAWS).metrics["found"]) == 1.0


def test_the_temperature_is_capped() -> None:
    table, pictures = vectors(4), vectors(4, 1)
    rows = batch([0, 1, 2, 3], [0, 1, 2, 3], pictures)
    hot, hotter = (objective(table, scale).loss(rows, DRAWS).total for scale in (5.0, 50.0))
    assert torch.equal(hot, hotter)


def test_all_three_parts_are_trained_together() -> None:
    trained = objective(vectors(4))
    assert list(trained.roles()) == ["text", "image", "pair"]
    (phase,) = trained.phases()
    assert phase.trains == ("text", "image", "pair")
    trained.loss(batch([0, 1, 2, 3], [0, 1, 2, 3], vectors(4, 1)), DRAWS).total.backward()
    assert all(p.grad is not None for p in trained.parameters())
