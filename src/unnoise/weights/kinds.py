"""What tensors are, by their names and shapes: models, their parts, adapters, textual inversions. A table.

Facts come from the loaders of diffusers, ComfyUI, InvokeAI and stable-diffusion.cpp. What tensors cannot tell apart is
named so: Stable Diffusion 1.4 from 1.5, SDXL from its Turbo and Lightning, Flux.1 dev from Kontext and Krea.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

from unnoise.weights.adapters import as_adapter, as_inversion, modules_of
from unnoise.weights.families.family import recognised
from unnoise.weights.shapes import Finding, Shapes, size

ROOT = r"^(?:model\.diffusion_model\.|model\.model\.|diffusion_model\.|unet\.|transformer\.|net\.|model\.)?"
CROSS = r"attn2\.to_k\.weight$"
ADDED = r"(^|\.)(label_emb\.0\.0|add_embedding\.linear_1)\.weight$"
TOWERS, AUTOENCODER = r"^(cond_stage_model|conditioner\.embedders|text_encoders)\.", r"^(first_stage_model|vae)\."
OURS = r"^denoiser\.network\.|^autoencoder\.latent_mean|^text(\.[\w-]+)?\.token\.weight|^pair\."
TINY = "a tiny autoencoder of the TAESD family"
TINY_FOR = {4: "Stable Diffusion 1, 2 or XL", 16: "Stable Diffusion 3 or Flux.1", 32: "Flux.2"}  # by latent channels
# (what it is, patterns of which each must be found in some name), the most special first; ^ is a name's beginning
MODELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("an unnoise model: autoencoder, text tower and denoiser",
     (r"^denoiser\.network\.", r"^text(\.[\w-]+)?\.token\.", r"^autoencoder\.")),
    ("a part of an unnoise model", (OURS,)),
    ("an IP-Adapter", (r"^image_proj\.|^ip_adapter_proj_model\.", r"ip_adapter\.|to_k_ip|processor\.ip_adapter")),
    ("a Control-LoRA", (r"lora_controlnet",)),
    ("an LLLite control network", (r"^lllite_unet",)),
    ("a control network (ControlNet) for Flux.1",
     (r"controlnet_x_embedder|controlnet_blocks", r"single_transformer_blocks|double_blocks")),
    ("a control network (ControlNet) for Stable Diffusion 3",
     (r"controlnet_blocks", r"pos_embed_input|joint_blocks|transformer_blocks")),
    ("a control network (ControlNet)", (r"zero_convs\.0|controlnet_cond_embedding|input_hint_block",)),
    ("a T2I-Adapter", (r"^(adapter\.)?body\.0\.(in_conv|resnets|block1)|^body\.0\.block2",)),
    ("motion modules of AnimateDiff", (r"motion_modules\.\d",)),
    ("Flux.3", (r"early_stream_modulations\.",)),
    ("Flux.2", (r"double_stream_modulation_img",)),
    ("Chroma", (r"distilled_guidance_layer\.",)),
    ("Stable Diffusion 3, one file", (r"joint_blocks\.\d", r"^text_encoders\.|^first_stage_model\.")),
    ("the denoiser of Stable Diffusion 3", (r"joint_blocks\.\d",)),
    ("the denoiser of Stable Diffusion 3, diffusers' names",
     (r"transformer_blocks\.0\.attn\.add_q_proj", r"pos_embed\.proj")),
    ("Flux.1, one file", (r"double_blocks\.\d", r"single_blocks\.\d", r"^(text_encoders|vae|first_stage_model)\.")),
    ("the denoiser of Flux.1", (r"double_blocks\.\d", r"single_blocks\.\d")),
    ("the denoiser of Flux.1, diffusers' names", (ROOT + r"single_transformer_blocks\.\d", r"x_embedder")),
    ("Qwen-Image", (r"transformer_blocks\.\d+\.img_mod\.1",)),
    ("the denoiser of HiDream", (r"caption_projection\.0\.linear", r"double_stream_blocks|single_stream_blocks")),
    ("Krea 2", (r"txtfusion\.projector",)),
    ("ERNIE-Image", (r"layers\.0\.adaLN_sa_ln",)),
    ("Z-Image", (r"cap_embedder\.1", r"layers\.0\.adaLN_modulation\.0")),
    ("Lumina 2", (r"cap_embedder\.1", r"context_refiner")),
    ("PixArt", (r"t_block\.1\.weight|adaln_single\.linear", r"cross_attn|attn2")),
    ("SANA", (r"cross_attn\.q_linear|attn2\.to_q", r"glumb?_?conv|conv_inverted|mlp\.inverted_conv")),
    ("HunyuanDiT", (r"mlp_t5\.0",)),
    ("Wan", (r"head\.modulation", r"blocks\.\d+\.cross_attn")),
    ("Anima", (r"llm_adapter\.",)),
    (f"{TINY}, stable-diffusion.cpp's names", (r"^(first_stage_model\.)?decoder\.\d+\.conv\.0|^tae\.",)),
    (TINY, (r"^(taesd_)?(decoder|encoder)\.layers\.\d+\.conv\.0|^taesd_(en|de)coder\.1\.",)),
    (f"{TINY}: one half, named by numbers", (r"^\d+\.conv\.0\.weight", r"^\d+\.conv\.4\.weight")),
    ("an upscaler (ESRGAN)", (r"^model\.1\.sub\.0\.RDB1|RRDB_trunk|body\.0\.rdb1\.conv1",)),
    ("an upscaler (SwinIR, HAT or DAT)", (r"^layers\.0\.residual_group\.blocks",)),
    ("an autoencoder, original names", (r"^(first_stage_model\.)?(decoder\.mid\.block_1|encoder\.mid\.block_1)",)),
    ("an autoencoder, diffusers' names", (r"^(vae\.)?decoder\.up_blocks\.", r"^(vae\.)?encoder\.down_blocks\.")),
    ("an autoencoder of SANA (DC-AE)", (r"encoder\.project_in\.conv",)),
    ("an autoencoder of Wan and Qwen-Image", (r"decoder\.middle\.0\.residual\.0\.gamma",)),
    ("CLIP's text and image encoders", (r"text_model\.encoder\.layers\.", r"vision_model\.encoder\.layers\.")),
    ("CLIP's image encoder", (r"vision_model\.encoder\.layers\.|^visual\.transformer\.resblocks",)),
    ("a CLIP text encoder", (r"text_model\.encoder\.layers\.|^encoder\.layers\.\d+\.self_attn\.q_proj",)),
    ("a CLIP text encoder, OpenCLIP's names", (r"^(model\.)?transformer\.resblocks\.\d+\.attn\.in_proj_weight",)),
    ("a T5 text encoder", (r"encoder\.block\.\d+\.layer\.0\.SelfAttention|^enc\.blk\.",)),
    ("a Qwen language model", (r"layers\.\d+\.self_attn\.(q_norm|k_proj\.bias)",)),
    ("a Gemma language model", (r"post_feedforward_layernorm",)),
    ("a language model of the Llama family",
     (r"(model\.)?layers\.\d+\.self_attn\.q_proj\.weight|^blk\.\d+\.attn_q\.",)),
    ("the states of an optimiser", (r"\.(exp_avg|exp_avg_sq)$",)),
)  # fmt: skip
MAX_TEXT = 2**18  # characters of names that are searched; of more every second, third and so on is taken
MAX_TENSORS = 12_000  # that are looked at: no model of today has half as many
QUANTISED = (  # (how the numbers are packed, what a name holds)
    ("fp8 with scales", r"\.(scale_weight|weight_scale|scale_input)$|^scaled_fp8$"),
    ("ComfyUI's", r"\.comfy_quant$"),
    ("bitsandbytes nf4", r"quant_state\.bitsandbytes__"),
    ("nunchaku (SVDQuant)", r"\.(qweight|wscales|smooth_factor)$"),
)
LABELS = {  # what trainers write of themselves: {key: what it is}
    "modelspec.title": "title", "modelspec.architecture": "architecture by its header",
    "modelspec.prediction_type": "prediction by its header", "ss_base_model_version": "base model by its header",
    "ss_sd_model_name": "trained on", "ss_network_module": "trained by", "ss_training_comment": "comment",
}  # fmt: skip


def kind_of_tensors(tensors: Shapes, metadata: Mapping[str, str]) -> Finding:
    """What these tensors are; "unknown" where nothing fits."""
    if not tensors:
        return Finding("no tensors: an empty file of weights", {}, "download it again, or name another file")
    step = -(-len(tensors) // MAX_TENSORS)
    if step > 1:
        some = kind_of_tensors(dict(itertools.islice(tensors.items(), 0, None, step)), metadata)
        return some._replace(facts={"looked at": f"one in {step} of its tensors", **some.facts})
    length = sum(map(len, tensors))
    text = "\n".join(list(tensors)[:: 1 + length // MAX_TEXT])
    stray = len(modules_of(tensors))
    finding = as_model(tensors, text) if 20 * stray < len(tensors) or not stray else None
    if finding is not None and stray:
        finding = finding._replace(note=f"{stray} modules of an adapter lie in it too, left over from a merge")
    finding = finding or as_adapter(tensors, metadata) or as_inversion(tensors) or as_model(tensors, text)
    if finding is None:
        return Finding("unknown", labels(metadata))
    packed = [how for how, pattern in QUANTISED if re.search(pattern, text, re.M)]
    return finding._replace(
        facts={**finding.facts, **({"packed": ", ".join(packed)} if packed else {}), **labels(metadata)}
    )


def labels(metadata: Mapping[str, str]) -> dict[str, str]:
    """The labels in a header, in the words of those who made the file."""
    return {what: metadata[key] for key, what in LABELS.items() if metadata.get(key) not in (None, "", "None")}


def as_model(tensors: Shapes, text: str) -> Finding | None:
    """What model or part of one these tensors are; None if none is known that bears these names."""
    matches = ((what, patterns) for what, patterns in MODELS if all(re.search(p, text, re.M) for p in patterns))
    first = next(matches, None)
    if first is not None and not first[0].startswith(("an autoencoder, original", "a CLIP", "CLIP")):
        return Finding(first[0], details(first[0], tensors))
    original = re.search(r"(^|\.)input_blocks\.\d+\.\d+\.", text, re.M)
    unets = (r"(^|\.)down_blocks\.0\.", r"(^|\.)time_embedding\.")
    if original or all(re.search(pattern, text, re.M) for pattern in unets):
        form = "the U-Net alone, original names" if original else "the U-Net alone, diffusers' names"
        if re.search(TOWERS, text, re.M):
            form = "one file"
        elif re.search(AUTOENCODER, text, re.M):
            form = "one file without text encoders"
        return unet(tensors, form)
    return Finding(first[0], details(first[0], tensors)) if first is not None else None


def unet(tensors: Shapes, form: str) -> Finding:
    """Which of the U-Nets of Stable Diffusion it is, as loading it recognises it, and what it takes in."""
    family = recognised(size(tensors, CROSS, -1), size(tensors, ADDED, 1) or 0, tensors)
    what = family.title if family is not None else "a U-Net of the Stable Diffusion kind"
    channels = size(tensors, r"(^|\.)(input_blocks\.0\.0|conv_in)\.weight$", 1)
    uses = {4: "", 9: ", for inpainting", 8: ", for editing by instruction", 5: ", with depth", 7: ", the upscaler"}
    facts: dict[str, Any] = {"channels that it takes": channels} if channels else {}
    if any(name.endswith(("v_pred", "ztsnr")) for name in tensors):
        facts["prediction"] = "v (marked in it)"
    if any(name.rpartition(".")[2].startswith("edm_") for name in tensors):
        facts["prediction"] = "EDM's (marked in it)"
    return Finding(f"{what}{uses.get(channels or 4, '')}, {form}", facts)


def details(what: str, tensors: Shapes) -> dict[str, Any]:
    """What shapes reveal about a model whose kind is known."""
    facts: dict[str, Any] = {}
    if "Flux.1" in what:
        guided = any("guidance_in." in name or "guidance_embedder" in name for name in tensors)
        facts["variant"] = "dev, or one made of it" if guided else "schnell, or one made of it"
        channels = size(tensors, r"(img_in|x_embedder)\.weight$", 1)
        uses = {384: "Fill", 128: "Depth or Canny", 196: "Flex.2"}
        facts["variant"] = uses.get(channels or 64, facts["variant"])
    if "Stable Diffusion 3" in what and (
        rows := size(tensors, r"x_embedder\.proj\.weight$|pos_embed\.proj\.weight$", 0)
    ):
        facts["blocks"] = rows // 64
    if "autoencoder" in what and (depth := size(tensors, r"decoder\.conv_in\.weight$", 1)):
        facts["latent channels"] = depth
    if "TAESD" in what:
        halves = {"decoder": r"decoder\.", "encoder": r"encoder\."}
        names = [half for half, pattern in halves.items() if any(re.search(pattern, name) for name in tensors)]
        first = size(tensors, r"^0\.weight$", 1)  # an encoder begins with a picture's three channels
        facts["half"] = " and ".join(names) or ("encoder" if first == 3 else "decoder")
        latent = size(tensors, r"^1\.weight$|decoder\.1\.weight$", 1)
        if facts["half"] == "encoder":  # whose last layer gives the latent
            numbers = [
                int(match[1]) for name in tensors if (match := re.fullmatch(r"(?:.*\.)?(\d{1,4})\.weight", name))
            ]
            latent = size(tensors, rf"(^|\.){max(numbers, default=0)}\.weight$", 0)
        if latent and " and " not in facts["half"]:
            facts["latent channels"] = latent
            facts |= {"for": TINY_FOR[latent]} if latent in TINY_FOR else {}
    if "CLIP text encoder" in what and (width := size(tensors, r"token_embedding\.weight$", 1)):
        facts["width"] = f"{width} ({ {768: 'CLIP-L', 1024: 'OpenCLIP-H', 1280: 'OpenCLIP-G'}.get(width, 'unknown') })"
    return facts
