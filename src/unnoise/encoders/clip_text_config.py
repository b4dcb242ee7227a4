"""The shape of a CLIP text tower, without torch: what is read of a file before its weights are."""

from __future__ import annotations

from dataclasses import dataclass, field

ACTIVATIONS = ("quick_gelu", "gelu")
LATER = {"added": True}  # settings that trainings of old do not know, which their hashes leave out


@dataclass(frozen=True)
class CLIPTextConfig:
    """The shape of a CLIP text tower.

    Attributes:
        vocabulary: number of token ids.
        length: ids in a row.
        width, depth, heads, hidden: of the transformer; hidden is the width inside its MLPs.
        activation: "quick_gelu", as OpenAI's CLIP has it, or "gelu".
        end: the id that ends a prompt; the prompt's vector is read at the first one.
        layer: whose output the tokens' vectors are, counted from the end of the whole tower: 1 is the last block.
        final_norm: whether these vectors pass the last norm; the prompt's vector always does.
        projection: width of a linear map of the prompt's vector, without a bias; 0 for none.
        masked: whether the condition says which tokens are real. Published Stable Diffusion networks attend to all.
        pad: the id that fills up rows; None for the vocabulary's own.
        chunks: the rows that a long prompt may be cut into, each read by itself.
        cut: blocks at the end that the weights leave out, beside the ``depth`` that are there; ``layer`` counts them.
            A tower without its end has no vector for a prompt.
    """

    vocabulary: int = 2048
    length: int = 32
    width: int = 256
    depth: int = 4
    heads: int = 4
    hidden: int = 1024
    activation: str = "quick_gelu"
    end: int = 1
    layer: int = field(default=1, metadata=LATER)
    final_norm: bool = field(default=True, metadata=LATER)
    projection: int = field(default=0, metadata=LATER)
    masked: bool = field(default=True, metadata=LATER)
    pad: int | None = field(default=None, metadata=LATER)
    chunks: int = field(default=1, metadata=LATER)
    cut: int = field(default=0, metadata=LATER)

    @classmethod
    def tiny(cls) -> CLIPTextConfig:
        """The shape that tests use: as few numbers as have all parts."""
        return cls(300, width=32, depth=1, heads=2, hidden=64)
