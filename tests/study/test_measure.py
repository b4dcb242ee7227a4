"""Each figure on a case whose answer is known, and on one that must fail."""

from __future__ import annotations

import hashlib
import io
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from unnoise.cli.main import main
from unnoise.core.autoencoder import Posterior
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.data.store import PictureSet, open_set
from unnoise.data.write import Row, write_set
from unnoise.paths.flow import Flow
from unnoise.predictions.flow import FlowVelocity
from unnoise.study.measure import adherence, noise_error, reconstruction, retrieval

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 220), "black": (0, 0, 0)}
LETTERS = list(COLOURS)


class Colours:
    """A tokenizer of one word, which names a colour."""

    length, room = 3, 1

    def cut(self, caption: str) -> str:
        return caption.split()[0]

    def __call__(self, prompts: list[str]) -> Tensor:
        """(B, 1): which colour a prompt names."""
        return torch.tensor([[LETTERS.index(p)] for p in prompts])


tokenizer = Colours()


class Text(nn.Module):
    """The colour's one-hot vector; ``shift`` makes it the next colour's."""

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.shift = shift
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor) -> Condition:
        one_hot = torch.eye(len(LETTERS))[(ids[:, 0] + self.shift) % len(LETTERS)]
        return Condition(tokens=one_hot[:, None], pooled=one_hot)


class Look(nn.Module):
    """The nearest colour of a picture, as a one-hot vector."""

    def forward(self, x: Tensor) -> Tensor:
        palette = torch.tensor(list(COLOURS.values())) / 127.5 - 1
        return torch.eye(len(LETTERS))[torch.cdist(x.mean((2, 3)), palette).argmin(1)]


def compare(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.T


class Shrug(nn.Module):
    """An autoencoder that is off by a known amount."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.error = error
        self.nothing = nn.Parameter(torch.zeros(()))

    def encode(self, x: Tensor) -> Posterior:
        return Posterior(x, torch.zeros_like(x))

    def decode(self, z: Tensor) -> Tensor:
        return z + self.error / 127.5


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    rows = []
    for number, (name, colour) in enumerate(COLOURS.items()):
        data = io.BytesIO()
        Image.new("RGB", (128, 128), colour).save(data, "WEBP", lossless=True)
        pixels = Image.open(io.BytesIO(data.getvalue())).convert("RGB").tobytes()
        rows.append(
            Row(
                id=name,
                image=data.getvalue(),
                pixels=hashlib.sha256(pixels).hexdigest(),
                captions=[f"{name} square"],
                attributes={},
                family=name,
                identical=number,
                tier="tier1",
                part="validation",
            )
        )
    folder = tmp_path_factory.mktemp("sets") / "colours"
    write_set(folder, rows, {})
    return open_set(folder)


def test_a_known_error_gives_its_psnr(pictures: PictureSet) -> None:
    found = reconstruction(Shrug(5.0), pictures, [0, 1, 2])  # type: ignore[arg-type]
    assert torch.allclose(found.psnr, torch.full((3,), 20 * math.log10(255 / 5)), atol=1e-4)


def test_black_that_cannot_get_darker_is_no_error(pictures: PictureSet) -> None:
    worst = reconstruction(Shrug(-5.0), pictures, [0, 3]).worst(2)  # type: ignore[arg-type]
    assert [item for item, _ in worst] == [0, 3]
    assert worst[1][1] > 90  # clipped: what a viewer sees is equal


def test_retrieval_finds_the_right_one_and_only_that(pictures: PictureSet) -> None:
    args = (tokenizer, pictures, [0, 1, 2, 3])
    right = retrieval(Text(), Look(), compare, *args, k=1)  # type: ignore[arg-type]
    wrong = retrieval(Text(shift=1), Look(), compare, *args, k=1)  # type: ignore[arg-type]
    assert (right.by_caption, right.by_picture) == (1.0, 1.0)
    assert (wrong.by_caption, wrong.by_picture) == (0.0, 0.0)


def test_drawn_pictures_of_other_prompts_do_not_adhere() -> None:
    prompts = [f"{name} square" for name in LETTERS]
    drawn = torch.stack([(torch.tensor(c) / 127.5 - 1)[:, None, None].expand(3, 8, 8) for c in COLOURS.values()])
    right = adherence(drawn, prompts, Text(), Look(), compare, tokenizer)  # type: ignore[arg-type]
    wrong = adherence(drawn.roll(1, 0), prompts, Text(), Look(), compare, tokenizer)  # type: ignore[arg-type]
    assert (right.first, wrong.first) == (1.0, 0.0)


class Zero(nn.Module):
    """Says nothing: velocity 0, so that the predicted noise is x / (alpha + sigma)."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, label: Tensor, cond: Condition, **_: object) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.zeros_like(x), {}


def test_the_error_of_a_network_that_says_nothing_is_known(pictures: PictureSet) -> None:
    denoiser = Denoiser(Zero(), Flow(), FlowVelocity(), "time")
    errors = noise_error(denoiser, Text(), Shrug(0.0), tokenizer, pictures, [0, 1, 2, 3], (-3.0, 0.0, 3.0))  # type: ignore[arg-type]
    x0 = pictures.pictures().double() / 127.5 - 1
    for log_snr, error in errors.items():
        ratio = math.exp(log_snr)  # eps_hat - eps = alpha (x0 - eps) / (alpha + sigma)
        exact = (ratio / (1 + ratio)) ** 2 * (float((x0**2).mean()) + 1)
        assert error == pytest.approx(exact, rel=0.15)  # of noise that was drawn, not of its average


def test_the_verb_measures_a_whole_model(
    tiny_model: Path, tmp_path: Path, pictures: PictureSet, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "worst.png"
    assert main(["measure", str(tiny_model), "--data", str(pictures.path), "--sheet", str(sheet)]) == 0
    said = capsys.readouterr().out
    assert "PSNR mean" in said
    assert "squared error of the noise" in said
    assert Image.open(sheet).size[0] > 32


def test_a_set_with_nothing_held_out_is_told_in_one_line(
    tiny_model: Path, pictures: PictureSet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measure", str(tiny_model), "--data", str(pictures.path), "--part", "test"]) == 1
    assert "unnoise: " in capsys.readouterr().err
