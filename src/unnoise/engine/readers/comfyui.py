"""ComfyUI: a graph of nodes, from which the settings are read by walking back from its samplers.

A graph comes in API form, ``{id: {class_type, inputs}}`` in the text ``prompt``, or in editor form, in ``workflow``,
which ``comfyui_workflow`` converts. Both may have cycles and wrong types: no walk visits a node twice.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Container, Iterator, Mapping
from typing import Any

from unnoise.core.registry import register
from unnoise.engine.readers.comfyui_workflow import as_run
from unnoise.engine.readers.reading import Builder, Reading, agreed, json_object

MAX_NODES, MAX_SAMPLERS = 10_000, 100
Graph = Mapping[str, Mapping[str, Any]]
TEXTS = ("text", "text_g", "text_l", "clip_l", "clip_g", "t5xxl", "prompt", "positive_prompt", "string", "value",
         "string_a", "string_b", "text_a", "text_b", "wildcard_text", "populated_text")  # fmt: skip
ELSEWHERE = re.compile(r"clip$|clip_vision|model|vae|image|pixels|mask|control_net|latent|samples|noise|sigmas|sampler")
OUTPUTS = re.compile(r"save|preview|output|send", re.IGNORECASE)
FILES = {"ckpt_name": "model", "unet_name": "model", "model_name": "model", "lora_name": "LoRA", "vae_name": "VAE",
         "control_net_name": "ControlNet", "stop_at_clip_layer": "clip skip",
         "upscale_method": "upscaling"}  # fmt: skip


@register("comfyui")
def read(texts: Mapping[str, str]) -> Reading | None:
    """The settings in a picture's ComfyUI graph; None if it has none."""
    for name in ("prompt", "workflow"):
        graph = json_object(texts.get(name))
        if graph is not None and (reading := of_graph(graph, tool_of(texts, graph))) is not None:
            return reading
    return None


def tool_of(texts: Mapping[str, str], graph: Mapping[str, Any]) -> str:
    """The tool that ran the graph."""
    if "generation_data" in texts:
        return "Tensor.Art (ComfyUI)"
    return "Civitai (ComfyUI)" if "extraMetadata" in graph or "resource-stack" in graph else "ComfyUI"


def of_graph(whole: Mapping[str, Any], tool: str = "ComfyUI") -> Reading | None:
    """The record of a graph in either form; None if it is no graph."""
    if isinstance(whole.get("nodes"), list):
        whole = as_run(whole)
    elif isinstance(whole.get("prompt"), dict):  # a request to the server
        whole = whole["prompt"]
    graph = {
        str(key): node
        for key, node in list(whole.items())[:MAX_NODES]
        if isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
    }
    if not graph:
        return None
    outputs = [key for key, node in graph.items() if OUTPUTS.search(node["class_type"])]
    used = upstream(graph, *outputs) if outputs else dict.fromkeys(graph)
    samplers = [key for key in graph if is_sampler(graph[key])]
    samplers = [key for key in samplers if key in used] or samplers
    readings = [of_sampler(graph, key, tool) for key in samplers[:MAX_SAMPLERS]]
    if not readings:
        return Reading(tool, notes=("the graph has no sampler",))
    whole_reading = (
        readings[0]
        if len(readings) == 1
        else agreed(tool, readings, "samplers", [f"{graph[key]['class_type']} {key}" for key in samplers])
    )
    left_out = {**whole_reading.left_out, **files(graph, used)}
    return Reading(**{**whole_reading.__dict__, "left_out": left_out})


def is_sampler(node: Mapping[str, Any]) -> bool:
    """Whether a node runs the steps: it has two prompts or a guider, and does not just choose a method."""
    inputs = node["inputs"]
    has_prompts = "positive" in inputs or "guider" in inputs
    return has_prompts and "sampler" in node["class_type"].lower() and ("steps" in inputs or "sigmas" in inputs)


def link(value: Any) -> tuple[str, int] | None:
    """(node, output) that an input is linked to; None for a plain value."""
    if isinstance(value, list) and len(value) == 2 and type(value[1]) is int and isinstance(value[0], str | int):
        return str(value[0]), value[1]
    return None


def upstream(graph: Graph, *starts: str) -> dict[str, None]:
    """The nodes that these depend on, including themselves, the nearest first."""
    nodes: dict[str, None] = {}
    waiting = deque(starts)
    while waiting:
        key = waiting.popleft()
        if key in nodes or key not in graph:
            continue
        nodes[key] = None
        waiting += [there[0] for value in graph[key]["inputs"].values() if (there := link(value))]
    return nodes


def scalar(graph: Graph, value: Any) -> Any:
    """A plain value, or the value that a linked node holds; None if there is none."""
    visited: set[str] = set()
    while (there := link(value)) is not None:
        node = graph.get(there[0])
        if node is None or there[0] in visited:
            return None
        visited.add(there[0])
        names = ("value", "seed", "noise_seed", "int", "float", "number", "string", "text", "a", "Number", "Value")
        value = next((node["inputs"][name] for name in names if name in node["inputs"]), None)
    return value


def node_at(graph: Graph, node: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The node that an input is linked to."""
    there = link(node["inputs"].get(name))
    return graph.get(there[0]) if there else None


def of_sampler(graph: Graph, key: str, tool: str) -> Reading:
    """The settings of one sampler."""
    node = graph[key]
    inputs = node["inputs"]
    values = {name: scalar(graph, inputs[name]) for name in inputs}
    build = Builder(tool, {})
    for field, names in (("seed", ("seed", "noise_seed")), ("steps", ("steps",)), ("cfg_scale", ("cfg", "cfg_scale")),
                         ("sampler", ("sampler_name",)), ("schedule", ("scheduler",))):  # fmt: skip
        for name in names:
            if values.get(name) is not None:
                build.put(field, values[name], name)
    if (noise := node_at(graph, node, "noise")) is not None:
        build.put("seed", scalar(graph, noise["inputs"].get("noise_seed")), "noise_seed")
    _method(graph, node, build)
    strength = build.fields.pop("strength", None) or values.get("denoise")
    guider = node_at(graph, node, "guider") or node
    if guider is not node:
        has_scale = "cfg" in guider["inputs"]
        build.put("cfg_scale", scalar(graph, guider["inputs"]["cfg"]) if has_scale else 1.0, "cfg")
    positive = "positive" if "positive" in guider["inputs"] else "conditioning"
    for field, name in (("prompt", positive), ("negative", "negative")):
        build.put(field, text_of(graph, guider["inputs"].get(name), build))
    _latent(graph, inputs.get("latent_image"), strength, build)
    part = {
        name: values[name] for name in ("start_at_step", "end_at_step") if values.get(name) not in (None, 0, 10_000)
    }
    build.more |= part
    return build.reading()


def _method(graph: Graph, node: Mapping[str, Any], build: Builder) -> None:
    """Sampler and schedule if they are separate nodes: ``KSamplerSelect``, ``KarrasScheduler`` and the like."""
    if (method := node_at(graph, node, "sampler")) is not None:
        name = scalar(graph, method["inputs"].get("sampler_name"))
        build.put("sampler", name if isinstance(name, str) else method["class_type"].replace("Sampler", ""))
        build.put("eta", scalar(graph, method["inputs"].get("eta")), "eta")
    if (sigmas := node_at(graph, node, "sigmas")) is not None:
        if not {"steps", "scheduler"} & sigmas["inputs"].keys():  # the node changes other sigmas: take those
            sigmas = next((inner for inner in (node_at(graph, sigmas, "sigmas"),) if inner), sigmas)
        name = scalar(graph, sigmas["inputs"].get("scheduler"))
        build.put("schedule", name if isinstance(name, str) else sigmas["class_type"].replace("Scheduler", ""))
        build.put("steps", scalar(graph, sigmas["inputs"].get("steps")), "steps")
        build.put("strength", scalar(graph, sigmas["inputs"].get("denoise")), "denoise")


def text_of(graph: Graph, value: Any, build: Builder) -> str | None:
    """The text of a conditioning, its parts joined; None if there is none."""
    texts = list(dict.fromkeys(_texts(graph, value)))
    if not texts:
        return None
    parts = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if len(parts) > 1:
        build.note("prompts that were combined are joined with commas")
    return ", ".join(parts) if parts else ""


def _texts(graph: Graph, value: Any) -> Iterator[str]:
    visited: set[tuple[str, int]] = set()
    waiting = [value]
    while waiting:
        there = link(waiting.pop())
        if there is None or there in visited or there[0] not in graph:
            continue
        visited.add(there)
        node = graph[there[0]]
        if node["class_type"] == "ConditioningZeroOut":
            yield ""
            continue
        inputs = node["inputs"]
        if "positive" in inputs and "negative" in inputs:  # the node passes on both, each by its own output
            waiting.append(inputs["negative" if there[1] == 1 else "positive"])
            continue
        yield from (inputs[name] for name in TEXTS if isinstance(inputs.get(name), str))
        waiting += reversed([each for name, each in inputs.items() if link(each) and not ELSEWHERE.search(name)])


def _latent(graph: Graph, value: Any, strength: Any, build: Builder) -> None:
    """Size, and whether there was a start picture, from the nodes that make the sampler's latents."""
    there = link(value)
    nodes = [graph[key] for key in upstream(graph, there[0])] if there else []
    sizes = [node for node in nodes if "width" in node["inputs"] and "Empty" in node["class_type"]]
    if sizes:
        build.put("size", tuple(scalar(graph, sizes[0]["inputs"].get(side)) for side in ("width", "height")))
    pictures = [node for node in nodes if node["class_type"].startswith(("LoadImage", "VAEEncode"))]
    if pictures:
        build.put("strength", strength, "denoise")
        names = [node["inputs"].get("image") for node in pictures if isinstance(node["inputs"].get("image"), str)]
        build.more["start picture"] = names[0] if names else "of another node"


def files(graph: Graph, used: Container[str]) -> dict[str, str]:
    """{kind: names} of models and other files that the picture depends on."""
    names_of: dict[str, list[str]] = {}
    for key in graph:
        inputs = graph[key]["inputs"] if key in used else {}
        for name, what in FILES.items():
            value = inputs.get(name)
            if isinstance(value, str | int) and str(value) not in names_of.setdefault(what, []):
                names_of[what].append(str(value)[:100])
        guidance = inputs.get("guidance")
        if isinstance(guidance, int | float):
            names_of.setdefault("distilled guidance", []).append(str(guidance)[:20])
    return {what: ", ".join(names[:10]) for what, names in names_of.items() if names}
