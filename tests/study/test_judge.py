"""The judge's exam: what is asked, and that it tells a judge that sees from one that does not."""

from __future__ import annotations

import random
import re

import pytest
import torch

from study.judged import ROLES, judge, people, write_shapes
from unnoise.core.objective import Draws
from unnoise.data.feeds import CaptionFeed
from unnoise.data.store import PictureSet, open_set
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.errors import UnnoiseError
from unnoise.recipes.emoji_judge import JudgeFeed, disturb
from unnoise.study.candidates import HARD, RANDOM, Candidates, nouns, swaps
from unnoise.study.judge import Exam, examine, first

GOLDEN = "9aea0c3bc5720fc8ac2d38ba2f63972a24e2e0b3cf169d2d1614829c6abce87b"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return open_set(write_shapes(tmp_path_factory.mktemp("sets") / "shapes"))


# candidates


def test_the_list_is_the_committed_one() -> None:
    """A change of this hash is a change of every figure for retrieval: raise REVISION with it, and say so."""
    assert Candidates(people()).digest() == GOLDEN


def test_the_list_does_not_depend_on_the_order_of_the_set() -> None:
    mixed = random.Random(3).sample(range(102), 102)
    assert Candidates(people(mixed)).digest() == GOLDEN


def test_all_three_kinds_are_among_the_hardest() -> None:
    pictures = people()
    hard = [pictures.ids[i] for i in Candidates(pictures).hardest(0)]  # man-firefighter-light
    assert len(hard) == 4 + 9 + 5 + 1 < HARD, "tones, roles, the other person, the badge, and no more"
    assert {f"man-firefighter-{tone}" for tone in ("medium-light", "medium", "medium-dark", "dark")} <= set(hard)
    assert {f"man-{role}-light" for role in ROLES[1:]} <= set(hard)
    assert "woman-firefighter-light" in hard
    assert "badge" in hard
    kinds = [name.startswith("man-firefighter-") for name in hard[:6]]
    assert kinds[0], "another tone comes first"
    assert not all(kinds), "the kinds come in turn"


def test_all_candidates_are_wrong_and_different() -> None:
    pictures = people()
    candidates = Candidates(pictures)
    for item in range(len(pictures)):
        foils = candidates.of(item)
        assert len(foils) == HARD + RANDOM
        hard = candidates.hardest(item)
        assert foils[: len(hard)] == hard
        assert len({candidates.canonical[j] for j in foils}) == len(foils)
        assert not any(candidates.is_own(item, candidates.canonical[j]) for j in foils)
        assert all(pictures.identical[j] != pictures.identical[item] for j in foils)


def test_a_small_set_gives_all_it_has(shapes: PictureSet) -> None:
    assert sorted(Candidates(shapes).of(4)) == [i for i in range(12) if i != 4]


def test_nouns_are_no_persons_tones_or_small_words() -> None:
    assert nouns("a woman with dark skin and a T-shirt, medium-light skin tone") == {"t-shirt"}


# swapped captions


@pytest.mark.parametrize(
    ("caption", "attributes"),
    [
        ("woman firefighter, medium-light skin tone", ["tone", "person"]),
        ("two men kissing, dark skin tone and light skin tone", ["tone", "tone", "person"]),
        ("man, red hair", ["person", "hair"]),
        ("red heart", ["colour"]),
        ("up-left arrow", ["side", "side"]),
        ("snowman with light bulb", []),  # no man, and no tone of skin
        ("merperson", []),
    ],
)
def test_one_attribute_is_exchanged(caption: str, attributes: list[str]) -> None:
    found = swaps(caption)
    assert [attribute for attribute, _ in found] == attributes
    for _, other in found:
        pairs = zip(*(re.split("[ ,]+|(?<=up|wn)-", text) for text in (caption, other)), strict=True)
        assert sum(a != b for a, b in pairs) == 1
    assert swaps(caption) == found, "a pure function"


# the exam


def sit(who: bool | None, pictures: PictureSet) -> Exam:
    seeing = judge(bool(who))
    if who is None:  # says the same of everything
        torch.nn.init.zeros_(seeing.text.seen)  # type: ignore[arg-type]
    captions = seeing.captions([captions[0] for captions in pictures.captions])
    return examine(seeing, pictures, Candidates(pictures), captions)


def test_a_judge_that_sees_passes(shapes: PictureSet) -> None:
    exam = sit(True, shapes)
    assert (exam.pictures, exam.first, exam.swaps, exam.caught) == (12, 1.0, 12, 1.0)
    assert exam.by_attribute == {"colour": 1.0}
    assert exam.passed


@pytest.mark.parametrize("who", [False, None])
def test_a_colour_blind_or_indifferent_judge_fails(who: bool | None, shapes: PictureSet) -> None:
    exam = sit(who, shapes)
    assert (exam.first, exam.caught) == (0.0, 0.0), "a tie is lost"
    assert not exam.passed


@pytest.mark.parametrize(("first", "caught", "passed"), [(0.97, 0.9, True), (0.969, 1.0, False), (1.0, 0.899, False)])
def test_both_bars_hold(first: float, caught: float, passed: bool) -> None:
    assert Exam(100, first, 100, caught, {}).passed == passed


def test_a_set_of_one_caption_is_refused(shapes: PictureSet) -> None:
    candidates = Candidates(shapes)
    candidates.of = lambda item: []  # type: ignore[method-assign]
    with pytest.raises(UnnoiseError, match="no two different captions"):
        first(torch.ones(1, 2), torch.ones(1, 2), [0], candidates)


# what it is trained on


def feed(pictures: PictureSet, group: int = 2) -> JudgeFeed:
    words = Tokenizer.train([captions[0] for captions in pictures.captions], 300, 24)
    return JudgeFeed(pictures, list(range(len(pictures))), words, group)


def test_every_second_row_is_a_relative(shapes: PictureSet) -> None:
    fed, candidates = feed(shapes), Candidates(shapes)
    items = torch.tensor([0, 5, 3, 3, 7])
    batch = fed.batch(items, Draws(0, 0, 5, slice(None)))
    same = batch["same"].tolist()
    assert same[0::2] == [0, 3, 7], "rows without a partner after them too"
    assert all(near in candidates.hardest(lead) for lead, near in zip(same[:4:2], same[1::2], strict=True))
    assert items.tolist() == [0, 5, 3, 3, 7], "what was handed in is as it was"
    seen = {fed.batch(torch.tensor([0, 0]), Draws(0, step, 2, slice(None)))["same"][1].item() for step in range(30)}
    assert len(seen) > 3


def test_groups_of_three(shapes: PictureSet) -> None:
    fed, candidates = feed(shapes, group=3), Candidates(shapes)
    same = fed.batch(torch.tensor([0, 5, 3, 3, 7, 1, 2]), Draws(0, 0, 7, slice(None)))["same"].tolist()
    assert same[0::3] == [0, 3, 2], "the first of each group is as it was drawn"
    assert all(same[row] in candidates.hardest(same[row // 3 * 3]) for row in (1, 2, 4, 5))


def test_half_of_the_rows_have_the_canonical_caption() -> None:
    u = (torch.arange(1000) + 0.5) / 1000
    read = (JudgeFeed.choice(None, u) * 4).floor().long()  # type: ignore[arg-type]
    assert read.bincount().tolist() == [625, 125, 125, 125], "one half, and a quarter of the other"
    assert int((CaptionFeed.choice(None, u) * 4).floor().long().bincount().max()) == 250  # type: ignore[arg-type]


def test_micro_batches_of_an_even_size_are_the_same_rows(shapes: PictureSet) -> None:
    fed, items = feed(shapes), torch.tensor([0, 5, 3, 1])
    whole = fed.batch(items, Draws(0, 0, 4, slice(None)))
    half = fed.batch(items[2:], Draws(0, 0, 4, slice(2, 4)))
    assert torch.equal(whole["pictures"][2:], half["pictures"])
    assert torch.equal(whole["same"][2:], half["same"])


def test_disturbing_keeps_the_meaning(shapes: PictureSet) -> None:
    x = shapes.pictures().float() / 127.5 - 1
    still = torch.full((len(x), 10), 0.5)
    still[:, 9] = 0
    assert torch.allclose(disturb(x, still), x, atol=1e-4)
    looks = judge()
    u = torch.rand(8, len(x), 10, generator=torch.Generator().manual_seed(0))
    for draw in u:
        other = disturb(x, draw)
        assert float((other - x).abs().mean()) > 0.01
        assert torch.equal(looks.image(other), looks.image(x)), "colour and shape are as they were"
    corner = u[0].clone()
    corner[:, :3], corner[:, 9] = torch.tensor([0.5, 1.0, 0.5]), 0  # moved alone: to the left, by five pixels
    corner[:, 3:9] = 0.5
    moved = disturb(x, corner)
    assert torch.allclose(moved[..., :-5], x[..., 5:], atol=1e-3)
    assert torch.allclose(moved[..., -5:], torch.ones(()), atol=1e-3), "what comes in is white"
