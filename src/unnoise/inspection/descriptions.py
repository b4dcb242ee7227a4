"""JSON files: configurations, indices of shards, lists of tensors, tokenizers, data sets, workflows, servers' errors.

A row is a function that looks at the value and answers, or answers None; the first that answers counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unnoise.inspection.answer import JSON, Answer, names
from unnoise.inspection.uses import data_set, server_error, unnoises, workflow
from unnoise.weights.header import Header
from unnoise.weights.kinds import kind_of_tensors
from unnoise.weights.shapes import MAX_NAME

TORCH_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
PREDICTIONS = {"v_prediction": "v, not noise", "epsilon": "noise", "sample": "data", "flow_prediction": "flow"}


def pipeline(value: Any, path: Path) -> Answer | None:
    """The index of a pipeline of diffusers, or the settings of one of its parts."""
    name = value.get("_class_name") if isinstance(value, dict) else None
    if not isinstance(name, str):
        return None
    parts = {key: part for key, part in value.items() if isinstance(part, list) and len(part) == 2}
    if name.endswith("Pipeline") or len(parts) > 2:
        facts = {key: str(part[1]) if part[1] else "left out" for key, part in parts.items()}
        flags = {k: v for k, v in value.items() if isinstance(v, bool)}
        return Answer(f"the index of a model in diffusers' layout: {name}", JSON, facts | flags)
    if "Scheduler" in name:
        return scheduler(value, name)
    return network(value, name)


def scheduler(value: Mapping[str, Any], name: str) -> Answer:
    """The settings of a schedule: what the network predicts, and along which path."""
    keys = ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps", "timestep_spacing", "steps_offset",
            "set_alpha_to_one", "shift", "sigma_min", "sigma_max", "sigma_data", "use_dynamic_shifting",
            "rescale_betas_zero_snr", "use_karras_sigmas")  # fmt: skip
    prediction = str(value.get("prediction_type", "epsilon, which is what is meant where nothing is said"))
    facts = {"prediction": PREDICTIONS.get(prediction, prediction)} | {key: value[key] for key in keys if key in value}
    note = ""
    if name.startswith("EDM"):
        facts["prediction"] = f"{prediction} by its word, in EDM's preconditioning: not as Stable Diffusion has it"
        note = "a model with this must not be sampled as Stable Diffusion XL is, whatever its network looks like"
    elif "FlowMatch" in name:
        facts["prediction"] = "flow"
    return Answer(f"the schedule of a model in diffusers' layout: {name}", JSON, facts, note)


def network(value: Mapping[str, Any], name: str) -> Answer:
    """The settings of a network of diffusers."""
    keys = ("in_channels", "out_channels", "latent_channels", "cross_attention_dim", "joint_attention_dim",
            "block_out_channels", "num_layers", "num_single_layers", "num_attention_heads",
            "transformer_layers_per_block", "guidance_embeds", "qk_norm", "pos_embed_max_size", "patch_size",
            "addition_embed_type", "num_class_embeds",
            "only_cross_attention", "use_linear_projection",
            "sample_size", "scaling_factor", "shift_factor")  # fmt: skip
    facts = {key: value[key] for key in keys if value.get(key) is not None}
    note = ""
    if name == "UNet2DConditionModel":
        heads = value.get("attention_head_dim", 8)
        facts["heads"] = f"{heads} (attention_head_dim counts heads here, whatever its name says)"
        channels, classes = value.get("in_channels"), value.get("num_class_embeds")
        if classes:
            note = f"takes {channels} channels and one of {classes} noise levels of a small picture: an upscaler's"
        elif channels in (5, 7, 8, 9):
            note = f"takes {channels} channels: a picture or a mask beside the latents"
    return Answer(f"the settings of a network in diffusers' layout: {name}", JSON, facts, note)


def transformers_config(value: Any, path: Path) -> Answer | None:
    """The settings of a network of transformers."""
    if not isinstance(value, dict) or not isinstance(value.get("architectures"), list) or not value["architectures"]:
        return None
    keys = ("hidden_size", "d_model", "num_hidden_layers", "num_layers", "num_attention_heads", "hidden_act",
            "projection_dim", "vocab_size", "max_position_embeddings", "torch_dtype")  # fmt: skip
    facts = {key: value[key] for key in keys if key in value}
    return Answer(
        f"the settings of a network in transformers' layout: {str(value['architectures'][0])[:80]}", JSON, facts
    )


def shards(value: Any, path: Path) -> Answer | None:
    """The index of a model in several files: which of them are missing."""
    places = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        return None
    files = sorted(set(places.values()))
    tensors = {str(name)[:MAX_NAME]: ("?", None) for name in places}
    outside = [file for file in files if Path(file).name != file or file in ("", ".", "..")]
    missing = [file for file in files if file not in outside and not (path.parent / file).is_file()]
    metadata = value.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    kind = kind_of_tensors(tensors, {})
    facts = {
        "tensors": len(places),
        "shards": len(files),
        "bytes of all shards": total,
        "missing": names(missing) or "none",
    }
    fault = f"it names {names(outside)}, outside of its own folder" if outside else ""
    note = f"{len(missing)} of {len(files)} shards are not beside it; put them there" if missing else ""
    return Answer(f"the index of a model in shards: {kind.what}", JSON, facts, note, fault, "do not use it")


def adapter_config(value: Any, path: Path) -> Answer | None:
    """The settings of a PEFT adapter, its scale among them."""
    if not isinstance(value, dict) or "peft_type" not in value:
        return None
    rank, alpha = value.get("r"), value.get("lora_alpha")
    facts = {
        key: value[key]
        for key in (
            "r",
            "lora_alpha",
            "use_rslora",
            "use_dora",
            "target_modules",
            "base_model_name_or_path",
            "auto_mapping",
        )
        if value.get(key)
    }
    numbers = isinstance(rank, int | float) and isinstance(alpha, int | float) and rank > 0
    if numbers:
        facts["scale"] = alpha / (rank**0.5 if value.get("use_rslora") else rank)  # type: ignore[operator]
    weights = [n for n in ("adapter_model.safetensors", "adapter_model.bin") if (path.parent / n).is_file()]
    note = "" if weights else "its weights, adapter_model.safetensors, are not beside it; put them there"
    kind = str(value["peft_type"])[:40]
    return Answer(
        f"the settings of a PEFT adapter: {kind}, which belong to adapter_model.safetensors", JSON, facts, note
    )


def tokenizer(value: Any, path: Path) -> Answer | None:
    """A tokenizer, its vocabulary or its settings; the words of a textual inversion."""
    if not isinstance(value, dict):
        return None
    model = value.get("model")
    if isinstance(model, dict) and "vocab" in model:
        kind, words = str(model.get("type", "unknown kind"))[:40], model["vocab"]
        added = value.get("added_tokens")
        facts = {
            "entries": len(words) if isinstance(words, dict | list) else 0,
            "added": len(added) if isinstance(added, list) else 0,
        }
        return Answer(f"a tokenizer of the tokenizers library: {kind}", JSON, facts)
    if isinstance(value.get("tokenizer_class"), str) or {"bos_token", "eos_token"} <= set(value):
        keys = ("tokenizer_class", "model_max_length", "do_lower_case", "pad_token", "bos_token", "eos_token")
        facts = {k: v.get("content", v) if isinstance(v := value[k], dict) else v for k in keys if k in value}
        return Answer("the settings of a tokenizer in transformers' layout", JSON, facts)
    if len(value) >= 200 and all(isinstance(number, int) for number in value.values()):
        clip = len(value) == 49408 and "<|startoftext|>" in value
        return Answer("CLIP's vocabulary" if clip else "a tokenizer's vocabulary", JSON, {"entries": len(value)})
    if 1 <= len(value) <= 64 and all(
        isinstance(v, str) and re.fullmatch(r"(<[^<>]{1,60}>)+", v) for v in value.values()
    ):
        return Answer(
            "which words the vectors of a textual inversion stand for (Replicate's)",
            JSON,
            {str(k)[:80]: v for k, v in value.items()},
        )
    return None


def tensor_list(value: Any, path: Path) -> Answer | None:
    """A list of tensors: names alone, or with shapes as a header has them."""
    if isinstance(value, list) and len(value) >= 2 and all(isinstance(name, str) for name in value):
        tensors: dict[str, Any] = {name[:MAX_NAME]: ("?", None) for name in value}
    else:
        entries = value.get("keys", value) if isinstance(value, dict) else None
        if not isinstance(entries, dict) or not entries:
            return None
        entries = {k: v for k, v in entries.items() if k != "__metadata__"}
        if not entries or not all(isinstance(v, dict) and isinstance(v.get("shape"), list) for v in entries.values()):
            return None
        if any(type(n) is not int or not 0 <= n < 2**53 for v in entries.values() for n in v["shape"][:16]):
            return None
        tensors = {k[:MAX_NAME]: (dtype_of(v.get("dtype")), tuple(v["shape"][:16])) for k, v in entries.items()}
    return listed(tensors, JSON)


def dtype_of(name: object) -> str:
    """A type as safetensors calls it."""
    short = str(name).removeprefix("torch.")[:20]
    return TORCH_DTYPES.get(short, short)


def listed(tensors: Mapping[str, Any], form: str) -> Answer | None:
    """The answer for a list of tensors without their numbers; None if they are nothing known."""
    kind = kind_of_tensors(tensors, {})
    if kind.what == "unknown" and not any("." in name for name in tensors):
        return None
    what = f"a list of the tensors of: {kind.what}"
    sized = all(shape is not None for _, shape in tensors.values())
    header = Header(tensors, {}, 0) if sized else None
    return Answer(what, form, {"tensors": len(tensors), **kind.facts}, kind.note, header=header)


ROWS: tuple[Callable[[Any, Path], Answer | None], ...] = (
    pipeline, transformers_config, shards, adapter_config, unnoises, tokenizer, workflow, data_set,
    tensor_list, server_error,
)  # fmt: skip


def describe(value: Any, path: Path) -> Answer:
    """What a JSON file is, by its value; ``path`` is where it lies, for files that belong beside it."""
    match = next((answer for row in ROWS if (answer := row(value, path)) is not None), None)
    if match is not None:
        return match
    if isinstance(value, dict):
        return Answer("JSON of no kind that is known here", JSON, {"keys": names(value)})
    facts = {"entries": len(value)} if isinstance(value, list) else {}
    return Answer("JSON of no kind that is known here", JSON, facts)
