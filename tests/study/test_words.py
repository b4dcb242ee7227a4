"""Maps by word and what an exchange moves, on a network that looks where it was told to; and on one that does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from study import known
from study.judged import write_shapes
from tiny import tokenizer as words
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.registry import find
from unnoise.data.store import open_set
from unnoise.encoders.tokenizer import Tokens
from unnoise.engine.engine import Engine
from unnoise.engine.model import Model
from unnoise.errors import UnnoiseError
from unnoise.networks.layers import Inside, Network
from unnoise.study.distances import Figure
from unnoise.study.lessons.words import others, pairs, shade, study
from unnoise.study.maps import bare, change, correlation, draw_with_maps, moved, on_cells, spans, word_map

SAID = ("red", "green", "blue", "purple", "square", "bar", "post")


class Letters:
    """A word is as many tokens as it has letters, each the word's number; start and end are 7."""

    json, length, first = "letters", 32, 1

    def ids(self, prompt: str) -> list[int]:
        return [SAID.index(word) for word in prompt.split() for _ in word]

    def read(self, prompt: str) -> Tokens:
        return Tokens(self([prompt])[0], [], self.first)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        rows = [[7, *self.ids(prompt)] for prompt in prompts]
        return torch.tensor([row + [7] * (self.length - len(row)) for row in rows])


class Hot(nn.Module):
    """Tokens as zeros and ones."""

    def forward(self, ids: Tensor) -> Condition:
        return Condition(tokens=nn.functional.one_hot(ids, 8).float())


class Painter(Network):
    """Colours are looked for and painted on the left half; a shape's word on the right one, there painted if asked.

    ``green`` is looked for lower down than other colours. A scrambled painter paints where nobody looks.
    """

    def __init__(self, scrambled: bool = False, shapes: bool = False) -> None:
        super().__init__()
        self.unused, self.scrambled = nn.Parameter(torch.zeros(())), scrambled
        self.ink = torch.tensor([1.0, 0.3, 0.6, 0.0]).view(1, 4, 1) * shapes
        place = torch.full((8, 16, 16), 1e-3)
        place[:4, :, :8] = 1.0
        place[4:7, :, 8:] = 1.0
        place[1, :8, :8] = 1e-3
        place[7] = 0.02  # where nothing else is looked for
        self.register_buffer("place", place)

    def sites(self) -> tuple[str, ...]:
        return "mid.cross", "mid.self"

    def forward(
        self, x: Tensor, label: Tensor, cond: Condition, edits: Any = (), read: Any = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        inside = Inside(edits, read)
        assert cond.tokens is not None
        wanted = cond.tokens @ self.place.flatten(1)  # (B, L, N)
        weights = inside("mid.cross", (wanted / wanted.sum(1, keepdim=True)).mT[:, None])  # (B, 1, N, L)
        inside("mid.self", weights.flatten(2)[..., :4])
        colour = torch.eye(8, 3)[None].expand(len(x), -1, -1)
        colour = torch.cat([colour[:, :4] + torch.arange(4).view(1, 4, 1) / 4, colour[:, 4:] + self.ink], 1)
        where = (weights[:, 0] @ cond.tokens).mT.unflatten(2, (16, 16))  # (B, 8, h, w)
        if self.scrambled:
            where = where.flip(3)
        paint = torch.einsum("bwij,bwc->bcij", where * cond.tokens.amax(1)[:, :, None, None], colour)
        return paint.clamp(0, 1) * 2 - 1, inside.features


def model(scrambled: bool = False, shapes: bool = False) -> Engine:
    denoiser = Denoiser(Painter(scrambled, shapes), find("paths", "flow")(), find("predictions", "data")())
    defaults = {"steps": 3, "solver": "euler", "spacing": "trailing", "cfg_scale": 1.0}
    parts = {"denoiser": denoiser, "autoencoder": known.Cells(), "text": Hot()}
    return Engine(Model(parts, {"text": Letters()}, {"defaults": defaults}))  # type: ignore[dict-item]


def test_words_and_their_tokens() -> None:
    found = spans(words(), "two red hearts, a strange word")
    assert [word for word, _ in found] == ["two", "red", "hearts,", "a", "strange", "word"]
    row = words()(["two red hearts, a strange word"])[0].tolist()
    for word, span in found:
        assert words().library.decode(row[span]).strip() == word
    assert found[-1][1].stop == 1 + words().count("two red hearts, a strange word")

    class Joined(Letters):
        def ids(self, prompt: str) -> list[int]:
            return [0] if " " in prompt else [1]

    with pytest.raises(UnnoiseError, match="run across its words"):
        spans(Joined(), "red square")  # type: ignore[arg-type]


def test_maps_are_read_where_the_network_looks() -> None:
    pictures, maps = draw_with_maps(model(), ["red square", "green bar"], [0, 1], None)
    assert pictures.shape == (2, 3, 128, 128)
    assert torch.allclose(maps.sum(1), torch.ones(2, 16, 16), atol=1e-5), "a cell's attention is all there is"
    (_, red), (_, square) = spans(Letters(), "red square")  # type: ignore[arg-type]
    left, right = word_map(maps[0], red), word_map(maps[0], square)
    assert float(left.sum()) == pytest.approx(1)
    assert left[:, :8].sum() > 0.95
    assert right[:, 8:].sum() > 0.95
    (_, green), _ = spans(Letters(), "green bar")  # type: ignore[arg-type]
    assert word_map(maps[1], green)[8:].sum() > 0.6


def test_maps_of_a_real_network_are_its_own(engine: Engine) -> None:
    """Heads and sites by hand, one step: every cross-attention of the tiny U-Net, and no self-attention."""
    _, maps = draw_with_maps(engine, ["red apple"], [3], 1)
    assert maps.shape == (1, 32, 16, 16)
    cond = engine.model.encode(["red apple"])
    step = next(engine.steps("red apple", seed=3, steps=1)).step
    sites = ["down.cross", "mid.0.cross", "up.cross"]
    with torch.inference_mode():
        parts = engine.model.denoiser(step.x, step.here, cond=cond, read=sites).parts or {}
    whole = [parts[site].mean(1).mT.unflatten(2, (-1, side)) for site, side in zip(sites, (16, 8, 16), strict=True)]
    whole[1] = whole[1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(maps, sum(whole) / 3, atol=1e-6)


def test_a_network_without_cross_attention_is_refused() -> None:
    bare = model()
    bare.model.denoiser.network.sites = lambda: ("mid.self",)  # type: ignore[assignment]
    with pytest.raises(UnnoiseError, match="attends to no prompt"):
        draw_with_maps(bare, ["red square"], [0], None)


def test_small_figures() -> None:
    a, b = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    a[0, 0], b[1, 1] = 1, 1
    assert (moved(a, a), moved(a, b), moved(a, (a + b) / 2)) == (0, 1, 0.5)
    assert correlation(a, a) == pytest.approx(1)
    assert correlation(a, 1 - a) == pytest.approx(-1)
    assert correlation(a, torch.ones(2, 2)) == 0
    before, after = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(3, 4, 4, dtype=torch.uint8)
    after[:, :2, :2] = 30
    assert change(before, after, (2, 2)).tolist() == [[30, 0], [0, 0]]
    seen = torch.arange(8.0).reshape(1, 1, 4, 2)
    assert on_cells(seen, (4, 4))[0, 0].tolist() == [[0, 0, 2, 2]] * 2 + [[4, 4, 6, 6]] * 2
    assert shade(torch.tensor([[0.0, 1], [0.5, 0]]), 4)[0].tolist() == [[0, 0, 255, 255]] * 2 + [[128, 128, 0, 0]] * 2
    assert [bare(each) for each in ("Firefighter,", "(one)", "T-shirt")] == ["firefighter", "one", "t-shirt"]


def test_pairs_differ_in_one_word() -> None:
    found = pairs(["man, dark skin tone", "red heart", "heart", "red", "two men kissing, dark skin tone"])
    assert [(pair.row, pair.place, pair.attribute) for pair in found] == [(1, 0, "colour"), (4, 3, "tone")]
    for pair in found:
        differ = [k for k, (a, b) in enumerate(zip(pair.before.split(), pair.after.split(), strict=True)) if a != b]
        assert differ == [pair.place]
    assert others(["woman", "with", "red", "hair,", "skin"], 2) == [3], "small words and the word itself are left out"


def figures(scrambled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mixed: bool = False) -> dict[str, Figure]:
    """Every colour to green, and green to red: two words of which the maps are not the same.

    Mixed, in every second prompt the shape is exchanged instead, which is looked for, and painted, on the other half.
    """
    asked: list[str] = []

    def swaps(caption: str) -> list[tuple[str, str]]:
        colour, shape = caption.split()
        asked.append(caption)
        if mixed and len(asked) % 2:
            return [("shape", f"{colour} {'bar' if shape == 'post' else 'post'}")]
        return [("colour", f"{'red' if colour == 'green' else 'green'} {shape}")]

    monkeypatch.setattr("unnoise.study.lessons.words.swaps", swaps)
    shapes = open_set(write_shapes(tmp_path / "shapes"))
    lab = known.lab(model(scrambled, mixed), shapes, tmp_path / "memory")
    lesson = study(lab)
    kinds = "6 in shape, 6 in colour" if mixed else "12 in colour"
    assert lesson.sentences[0].startswith(
        f"12 pairs of prompts that differ in one word ({kinds}). Moved: its own less oth"
    )
    assert lesson.sheet.height > 4 * 80
    return {str(name): value for name, value in lesson.tables[0].rows}  # type: ignore[misc]


def test_an_exchange_moves_its_word_and_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = figures(False, tmp_path, monkeypatch)
    assert found["its map moved"].low > 0.2
    assert found["other words' maps moved"].value == pytest.approx(0, abs=0.02)
    assert found["change lies on its map"].low > 0.5
    assert found["change lies on other words' maps"].high < 0
    assert found["moved: its own less others'"].low > 0
    assert found["place: its own less others'"].low > 0
    assert found["place: its own less another pair's"].low <= 0, "pairs of which all exchange the same word"


def test_the_place_is_the_pairs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a neighbour exchanges another word, the change is not where that one was looked for."""
    found = figures(False, tmp_path, monkeypatch, mixed=True)
    assert found["place: its own less another pair's"].low > 0


def test_a_picture_that_changes_elsewhere_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same maps, and paint where nobody looks."""
    found = figures(True, tmp_path, monkeypatch)
    assert found["change lies on its map"].high < 0
    assert found["place: its own less others'"].high < 0
