"""Converts ComfyUI's graphs from editor form to API form: nodes by id, inputs by name.

The editor stores a node's own values in a list without names, in the order in which the node declares them; the orders
of the relevant nodes are below. After a seed the editor stores how it changes after a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_NODES = 10_000
AFTER = ("fixed", "increment", "decrement", "randomize")  # how a seed changes after a run; formerly true or false
SEEDS = ("seed", "noise_seed")
LINK = ("id", "origin_id", "origin_slot")  # the fields of a link that is not a list
NEVER, BYPASSED = 2, 4  # the editor's modes of nodes that do not run
ORDER: dict[str, tuple[str, ...]] = {
    "KSampler": ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        "add_noise", "noise_seed", "steps", "cfg", "sampler_name", "scheduler", "start_at_step", "end_at_step",
        "return_with_leftover_noise",
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "cfg"),
    "RandomNoise": ("noise_seed",),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "KarrasScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "ExponentialScheduler": ("steps", "sigma_max", "sigma_min"),
    "PolyexponentialScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "BetaSamplingScheduler": ("steps", "alpha", "beta"),
    "SDTurboScheduler": ("steps", "denoise"),
    "AlignYourStepsScheduler": ("model_type", "steps", "denoise"),
    "OptimalStepsScheduler": ("model_type", "steps", "denoise"),
    "CFGGuider": ("cfg",),
    "FluxGuidance": ("guidance",),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "CLIPTextEncodeSDXL": ("width", "height", "crop_w", "crop_h", "target_width", "target_height", "text_g", "text_l"),
    "CLIPTextEncodeSDXLRefiner": ("ascore", "width", "height", "text"),
    "CLIPTextEncodeSD3": ("clip_l", "clip_g", "t5xxl"),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "LatentUpscale": ("upscale_method", "width", "height", "crop"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "CheckpointLoader": ("config_name", "ckpt_name"),
    "UNETLoader": ("unet_name",),
    "VAELoader": ("vae_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "ControlNetLoader": ("control_net_name",),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "LoadImage": ("image",),
    "PrimitiveNode": ("value",),
    "PrimitiveInt": ("value",),
    "PrimitiveFloat": ("value",),
    "PrimitiveString": ("value",),
    "PrimitiveStringMultiline": ("value",),
}  # fmt: skip


def as_run(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """{id: {class_type, inputs}} of a graph in editor form; nodes of unknown kinds keep only their links."""
    nodes = [node for node in workflow["nodes"][:MAX_NODES] if isinstance(node, dict)]
    off = {str(node.get("id")) for node in nodes if node.get("mode") == NEVER}
    rows = workflow.get("links")
    links: dict[Any, list[Any]] = {}
    for each in rows if isinstance(rows, list) else []:
        parts = (
            [each.get(name) for name in LINK] if isinstance(each, dict) else each[:3] if isinstance(each, list) else []
        )
        if len(parts) == 3 and all(type(part) in (int, str) for part in parts):
            links[parts[0]] = [str(parts[1]), parts[2]]
    graph: dict[str, Any] = {}
    for node in nodes:
        key, kind = str(node.get("id")), node.get("type")
        if key in off or not isinstance(kind, str):
            continue
        bypassed = node.get("mode") == BYPASSED
        inputs = {} if bypassed else _values(kind, node.get("widgets_values"))
        for slot in node["inputs"] if isinstance(node.get("inputs"), list) else []:
            there = (
                links.get(slot.get("link")) if isinstance(slot, dict) and type(slot.get("link")) in (int, str) else None
            )
            if there is not None and there[0] not in off and isinstance(slot.get("name"), str):
                inputs[slot["name"]] = there
        graph[key] = {"class_type": "Bypassed" if bypassed else kind, "inputs": inputs}
    return graph


def _values(kind: str, widgets: Any) -> dict[str, Any]:
    """A node's own values by name."""
    if isinstance(widgets, dict):
        return {str(name): value for name, value in widgets.items()}
    values: dict[str, Any] = {}
    waiting = list(widgets) if isinstance(widgets, list) else []
    for name in ORDER.get(kind, ()):
        if not waiting:
            break
        values[name] = waiting.pop(0)
        if name in SEEDS and waiting and (isinstance(waiting[0], bool) or waiting[0] in AFTER):
            waiting.pop(0)
    return values
