from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.objective import Batch, Draws
from unnoise.core.registry import register
from unnoise.data.feeds import CaptionFeed
from unnoise.data.store import PictureSet, open_set
from unnoise.encoders.clip_text_config import CLIPTextConfig
from unnoise.encoders.image_conv import ImageConvConfig
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.errors import UnnoiseError
from unnoise.recipes.contrastive import contrastive_training
from unnoise.study.candidates import REVISION, Candidates
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings

SHIFT, SCALE, COLOUR = 5.0, 0.08, 0.06  # at most: pixels of 128, share of the size, share of half a channel's range


class JudgeFeed(CaptionFeed):
    """Rows come in groups, a picture and its hard relatives, half with the captions that a judge is asked about.

    A batch drawn at random holds few pictures that could be mistaken for one another. Here each group's first has
    others beside it from ``Candidates.hardest``: the same thing in another tone, the same tone in another role, a
    shared noun. Half of the rows have the picture's canonical caption, the first: it tells a picture from its
    relatives, where another may be true of several. All pictures are a little disturbed.

    Args:
        pictures, items, tokenizer: as for ``CaptionFeed``.
        group: rows of a group, at least 1, which is a batch drawn at random.
    """

    def __init__(self, pictures: PictureSet, items: list[int], tokenizer: Tokenizer, group: int) -> None:
        super().__init__(pictures, items, tokenizer)
        if group < 1:
            raise UnnoiseError(f"group is {group}, the rows of a group", "choose 1 or more")
        self.group = group
        candidates, row = Candidates(pictures), {item: number for number, item in enumerate(items)}
        near = [[row[other] for other in candidates.hardest(item) if other in row] for item in items]
        self.counts = torch.tensor([max(1, len(each)) for each in near])
        # a picture without relatives is its own: the loss takes equal pictures for one
        rows = [torch.tensor(each or [number]) for number, each in enumerate(near)]
        self.relatives = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (n, at most HARD)
        self.identity = f"{self.identity}/candidates {REVISION}/groups of {group}/half canonical"

    def batch(self, items: Tensor, draws: Draws) -> Batch:
        """As ``CaptionFeed.batch``."""
        rows = torch.arange(len(items))
        leads = items[rows // self.group * self.group]  # (B,) each row's group's first
        u = draws.on("cpu").uniform("relative")
        partners = self.relatives[leads, (u * self.counts[leads]).floor().long()]  # (B,)
        items = torch.where(rows % self.group == 0, items, partners)
        batch = dict(super().batch(items, draws))
        batch["pictures"] = disturb(batch["pictures"], draws.uniform("disturb", 10).float())
        return batch

    def choice(self, u: Tensor) -> Tensor:
        """As ``CaptionFeed.choice``: the first caption in half of the rows."""
        return (2 * u - 1).clamp_min(0)


def disturb(pictures: Tensor, u: Tensor) -> Tensor:
    """Pictures as a denoiser might draw them: moved, scaled, tinted and blurred, and never turned over.

    What is left and what is right, light or dark is a part of what captions say: no flips, and no colour that is far
    from the picture's own.

    Args:
        pictures: (B, 3, H, W) in [-1, 1] on white.
        u: (B, 10) uniform in [0, 1): scale, two shifts, three gains, three offsets, blur; 1/2 changes nothing, but that
            the blur goes from none at 0 to full at 1.
    """
    signed = (2 * u - 1)[..., None, None]  # (B, 10, 1, 1)
    affine = torch.zeros(len(pictures), 2, 3, device=pictures.device)
    affine[:, 0, 0] = affine[:, 1, 1] = 1 + SCALE * signed[:, 0, 0, 0]
    affine[:, :, 2] = 2 * SHIFT / 128 * signed[:, 1:3, 0, 0]
    grid = F.affine_grid(affine, list(pictures.shape), align_corners=False)
    x = F.grid_sample(pictures - 1, grid, align_corners=False) + 1  # what comes in from outside is white
    x = x * (1 + COLOUR * signed[:, 3:6]) + COLOUR * signed[:, 6:9]
    kernel = x.new_tensor([1.0, 2.0, 1.0]) / 4
    soft = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), (kernel[:, None] * kernel).expand(3, 1, 3, 3), groups=3)
    x = x + u[:, 9, None, None, None] * (soft - x)
    return x.clamp(-1, 1).contiguous(memory_format=torch.channels_last)


@register("emoji-judge")
def emoji_judge(
    data: Path = Path("data/emoji"),
    train: TrainSettings = TrainSettings(
        samples=200_000,
        batch=128,
        warmup=4000,
        cooldown=0.6,
        seed=1,
        checkpoint_every=40_000,
        preview_every=0,
        averages=(0.05,),
    ),
    text: CLIPTextConfig = CLIPTextConfig(vocabulary=3072, width=192, hidden=768),
    image: ImageConvConfig = ImageConvConfig(stages=((128, 2), (224, 3)), width=224),
    width: int = 192,
    group: int = 8,
    init: Path | None = None,
) -> Training:
    """The judge of `unnoise eval`: a contrastive pair of its own, trained on all pictures, held-out ones included.

    It shares no weight, tokenizer or seed with a generator, and passes an exam before its figures count.

    Args:
        data: the picture set.
        train: length and rates.
        text: shape of the text tower; ``vocabulary`` and ``length`` also shape the tokenizer.
        image: shape of the image tower.
        width: of the space that both are projected to.
        group: rows of a batch that are hard to tell apart: a picture and its relatives.
        init: a folder trained by emoji-judge that the training starts from.
    """
    pictures = open_set(data)
    items = [item for item, captions in enumerate(pictures.captions) if captions[0]]
    if not items:
        raise UnnoiseError(f"the picture set at {pictures.path} has nothing to train on", "build or name another one")
    return contrastive_training(
        recipe="emoji-judge",
        captions=[caption for i in items for caption in pictures.captions[i]],
        feed=lambda tokenizer: JudgeFeed(pictures, items, tokenizer, group),
        train=train,
        text=text,
        image=image,
        width=width,
        init=init,
        part="judge",
        info={"data": pictures.sha256},
    )
