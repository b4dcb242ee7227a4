from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.core.objective import Batch, Draws, Loss, Objective, Phase, Role
from unnoise.core.registry import register


@register("contrastive")
class ContrastiveObjective(Objective):
    """CLIP's loss: of all captions in the batch a picture must find its own, and a caption its picture.

    Radford et al. 2021 (arXiv 2103.00020), figure 3. Rows with the same picture or the same caption are not called
    wrong: the target is shared among them.

    Args:
        text: text tower, ids to a Condition.
        image: image tower, pictures to (B, width).
        pair: their projections.
    """

    def __init__(self, text: nn.Module, image: nn.Module, pair: nn.Module) -> None:
        super().__init__()
        self.text, self.image, self.pair = text, image, pair

    def roles(self) -> dict[str, Role]:
        return {"text": Role(self.text), "image": Role(self.image), "pair": Role(self.pair)}

    def phases(self) -> list[Phase]:
        return [Phase("contrastive", ("text", "image", "pair"), 1, self.loss)]

    def similarity(self, ids: Tensor, pictures: Tensor) -> Tensor:
        """(captions, pictures) cosine similarities."""
        cosines: Tensor = self.pair(self.text(ids).pooled, self.image(pictures))
        return cosines

    def loss(self, batch: Batch, draws: Draws) -> Loss:
        """``batch``: "pictures" (B, 3, H, W), "token_ids" (B, L), "same" (B,) ids that equal pictures share."""
        scale = self.pair.get_parameter("log_scale").exp().clamp(max=100)
        scores = self.similarity(batch["token_ids"], batch["pictures"]) * scale
        ids, same = batch["token_ids"], batch["same"]
        right = (same[:, None] == same) | (ids[:, None] == ids).all(-1)  # (B, B)
        target = right.float() / right.sum(1, keepdim=True)
        by_text = -(target * F.log_softmax(scores, dim=1)).sum(1)
        by_image = -(target * F.log_softmax(scores.T, dim=1)).sum(1)
        per_sample = (by_text + by_image) / 2
        top = scores.argmax(1)
        found = right.gather(1, top[:, None]).float().mean()
        return Loss(per_sample.mean(), per_sample.detach(), None, {"found": found.detach()})
