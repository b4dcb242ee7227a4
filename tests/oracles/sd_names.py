"""The weights of diffusers' Stable Diffusion networks under our names, told apart by rules of this file alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor, nn

UNET = (
    (r"^time\.0\.", "time_embedding.linear_1."),
    (r"^time\.2\.", "time_embedding.linear_2."),
    (r"^guided\.", "time_embedding.cond_proj."),
    (r"^added\.0\.", "add_embedding.linear_1."),
    (r"^added\.2\.", "add_embedding.linear_2."),
    (r"^enter\.", "conv_in."),
    (r"^leave\.norm\.", "conv_norm_out."),
    (r"^leave\.conv\.", "conv_out."),
    (r"^mid\.attention\.", "mid_block.attentions.0."),
    (r"\.self_attention\.", ".attn1."),
    (r"\.cross_attention\.", ".attn2."),
    (r"\.mlp\.up\.", ".ff.net.0.proj."),
    (r"\.mlp\.down\.", ".ff.net.2."),
    (r"\.blocks\.", ".transformer_blocks."),
    (r"\.enter\.", ".proj_in."),
    (r"\.leave\.", ".proj_out."),
    (r"\.level\.", ".time_emb_proj."),
)
LDM = (
    (r"^moments\.", "quant_conv."),
    (r"^latent\.", "post_quant_conv."),
    (r"coder\.enter\.", "coder.conv_in."),
    (r"coder\.norm\.", "coder.conv_norm_out."),
    (r"coder\.leave\.", "coder.conv_out."),
    (r"\.mid\.attention\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attention\.", ".mid_block.attentions.0."),
)
BOTH = (
    (r"\bmid\.", "mid_block."),
    (r"\bdown\.(\d+)\.", r"down_blocks.\1."),
    (r"\.residual\.", ".resnets."),
    (r"\.attention\.", ".attentions."),
    (r"\.shrink\.", ".downsamplers.0.conv."),
    (r"\.grow\.", ".upsamplers.0.conv."),
    (r"\.skip\.", ".conv_shortcut."),
    (r"\.query\.", ".to_q."),
    (r"\.key\.", ".to_k."),
    (r"\.value\.", ".to_v."),
    (r"\.out\.", ".to_out.0."),
)


def take(ours: nn.Module, theirs: nn.Module, rules: Sequence[tuple[str, str]]) -> None:
    """Gives ours the weights of theirs: all of them, and each once."""
    rest: dict[str, Tensor] = dict(theirs.state_dict())
    levels = len(ours.config.channels)  # type: ignore[union-attr, arg-type]
    found = {}
    for name, tensor in ours.state_dict().items():
        there = re.sub(r"\bup\.(\d+)\.", lambda m: f"up_blocks.{levels - 1 - int(m[1])}.", name)
        for rule, text in (*rules, *BOTH):
            there = re.sub(rule, text, there)
        found[name] = rest.pop(there).reshape(tensor.shape)
    assert not rest, sorted(rest)
    ours.load_state_dict(found)
