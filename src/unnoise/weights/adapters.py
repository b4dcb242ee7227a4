"""Adapters and textual inversions: which algorithm, whose names, for which model, by the tensors' names and shapes.

The dialects are those of the programs that wrote the files: kohya's sd-scripts, LyCORIS, PEFT, diffusers old and new,
cloneofsimo's lora, XLabs, OneTrainer, SimpleTuner, ComfyUI. Each is a row; the first that fits most names counts.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from unnoise.weights.shapes import Finding, Shapes, size, sizes

# a name is its module, a mark, and the part that the tensor plays for the module; it is looked for in the name's end
ROLE = re.compile(
    r"[._:](?P<role>lora_(?:down|up|mid|A|B)|lora_linear_layer\.(?:down|up)|up|down|alpha"
    r"|hada_[wt]\d(?:_[ab])?|lokr_[wt]\d(?:_[ab])?|oft_(?:blocks|diag)|dora_scale|lora_magnitude_vector|magnitude"
    r"|diff(?:_b)?|on_input|[ab][12m])(?:\.(?!weight|bias)[\w-]{1,40})?(?:\.(?:weight|bias))?$"
)
LONGEST_ROLE = 80
BARE = re.compile(r"_lora\d?$|^(?:unet|text_encoder):\d+$")  # modules whose roles are called up and down
ALGORITHMS = (  # (name, roles of which one must occur)
    ("LoKr", ("lokr_",)), ("LoHa", ("hada_",)), ("OFT", ("oft_",)), ("(IA)3", ("on_input",)), ("GLoRA", ("a1", "b1")),
    ("LoRA", ("lora_down", "lora_A", "lora_linear_layer.down", "down")), ("full differences", ("diff",)),
)  # fmt: skip
DORA = ("dora_scale", "lora_magnitude_vector", "magnitude")
DOWN = (
    r"[._:](?:lora_down|lora_A|lora_linear_layer\.down|down)(?:\.[\w-]{1,40})?(?:\.weight)?$|\.(?:lokr|hada)_w[12]_b$"
)
DIALECTS = (  # (whose names, what most names hold)
    ("cloneofsimo's, by number and not by name", r"^(unet|text_encoder):\d+:(up|down)$"),
    ("PEFT's", r"^base_model\.model\."),
    ("XLabs'", r"^(double|single)_blocks\.\d+\.processor\.\w+_lora\d?\.(down|up)"),
    ("those of diffusers' old attention processors", r"\.processor\.\w+_lora\.(down|up)\.weight$"),
    ("SimpleTuner's", r"^lycoris_"),
    ("OneTrainer's: diffusers' with underscores", r"^lora_transformer_"),
    ("kohya's", r"^(lora|oft)_(unet|te\d?|prior_unet)_"),
    ("diffusers' and PEFT's", r"^(unet|transformer|text_encoder(_\d)?)\."),
    ("ComfyUI's", r"^(diffusion_model|text_encoders)\."),
)
BASES = (  # (the model that it is for, what a name holds)
    ("Flux.2", r"double_stream_modulation|single_transformer_blocks[._]\d+[._]attn[._]to_qkv_mlp_proj"),
    ("Flux.1", r"double_blocks[._]|single_blocks[._]|single_transformer_blocks[._]"),
    ("Qwen-Image", r"transformer_blocks[._]\d+[._](img_mlp|img_mod|txt_mlp)"),
    ("Stable Diffusion 3", r"joint_blocks[._]|transformer_blocks[._]\d+[._]attn[._]add_[qkv]_proj"),
    ("Z-Image or Lumina 2", r"context_refiner[._]|(^|[._])layers[._]\d+[._]attention[._]"),
    ("Wan", r"(^|[._])blocks[._]\d+[._](cross_attn|self_attn)[._]"),
)
CONTEXT = r"attn2[._](?:processor[._])?to_[kv]"
WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
TEXT = (  # (which text encoder, beginning of a module's name)
    ("T5", r"^(lora|lycoris|oft)_te3_|^text_encoder_3\.|^text_encoders\.t5xxl"),
    ("text encoder 2", r"^(lora|lycoris|oft)_te2_|^text_encoder_2\.|^text_encoders\.clip_g"),
    ("text encoder", r"^(lora|lycoris|oft)_te1?_|^text_encoder[.:]|^text_encoders\."),
)
ENCODERS = {768: "CLIP-L", 1024: "OpenCLIP-H", 1280: "OpenCLIP-G", 4096: "T5-XXL"}
FOR = {(768,): "Stable Diffusion 1", (1024,): "Stable Diffusion 2", (768, 1280): "Stable Diffusion XL"}
MAX_VECTORS = 512


def modules_of(tensors: Shapes) -> dict[str, set[str]]:
    """{module: the roles that its tensors play} of all names that are an adapter's."""
    modules: dict[str, set[str]] = defaultdict(set)
    for name in tensors:
        end = name[1:][-LONGEST_ROLE:]
        match = ROLE.search(end)
        if match:
            module = name[: len(name) - len(end) + match.start()]
            if match["role"] not in ("up", "down") or BARE.search(module):
                modules[module].add(match["role"])
    glora = {"a1", "a2", "b1", "b2"}
    own = {name: roles for name, roles in modules.items() if roles - glora - {"bm", "am"} or glora <= roles}
    if any(role != "alpha" for roles in own.values() for role in roles):
        return own
    return {}  # a table of alphas is no adapter


def as_adapter(tensors: Shapes, metadata: Mapping[str, str]) -> Finding | None:
    """What kind of adapter these tensors are; None if they are none."""
    modules = modules_of(tensors)
    if not modules:
        return None
    roles = {role for each in modules.values() for role in each}
    kinds = [name for name, marks in ALGORITHMS if any(role.startswith(marks) for role in roles)]
    names = whose(tensors)
    broken = [n for n in tensors if n.startswith("lora_unet_unet_") or re.search(r"\w_lora_(down|up)\.weight$", n)]
    base = base_of(tensors, modules)
    what = " and ".join(kinds) + (", DoRA" if roles & set(DORA) else "")
    facts: dict[str, Any] = {"names": names, "modules": counted(modules)}
    if ranks := sorted(set(sizes(tensors, DOWN, 0))):
        facts["rank"] = ranks[0] if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    facts["alpha"] = alpha(modules, roles, names)
    if vectors := [name for name in tensors if re.fullmatch(r"<[^<>]{1,80}>", name)]:
        facts["textual inversions in it"] = ", ".join(vectors[:20])
    note = halves(modules)
    if "number" in names:
        note = "a program must know the order in which the trainer walked through the model; the names do not tell it"
    if broken:
        facts["names"] = "broken: a conversion to kohya's that failed (unet_ twice, or _lora_down for .lora_down)"
        note = f"no program matches {len(broken)} of its names; convert it again from the original"
    if len(kinds) > 2:
        note = "more algorithms than one adapter has: names of several were thrown together"
    elif set(kinds) & {"LoKr", "LoHa"} and any("qkv" in module for module in modules):
        note = "what it adds to fused layers of query, key and value must be multiplied out before it is split"
    return Finding(f"an adapter ({what}) for {base}" if base else f"an adapter ({what})", facts, note)


def whose(tensors: Shapes) -> str:
    """Whose names most of the tensors bear."""
    for who, pattern in DIALECTS:
        expression = re.compile(pattern)
        if 2 * sum(1 for name in tensors if expression.search(name)) > len(tensors):
            return who
    return "nobody's that is known here"


def base_of(tensors: Shapes, modules: Mapping[str, set[str]]) -> str:
    """The model that an adapter is for, by its modules' names and the width of what attends to the prompt; or ""."""
    text = "\n".join(modules)
    base = next((base for base, pattern in BASES if re.search(pattern, text)), "")
    if base:
        return base
    width = size(tensors, rf"{CONTEXT}.*[._:](lora_down|lora_A|down)", -1)
    if width is None:
        width = size(tensors, rf"{CONTEXT}.*\.hada_w1_b$", -1)
    if width is None:  # a Kronecker product is as wide as its factors' product
        one, two = (size(tensors, rf"{CONTEXT}.*\.lokr_w{n}(_b)?$", -1) for n in (1, 2))
        width = one * two if one and two else None
    if width is None:  # by number: one of the widths that come in is the prompt's
        width = next((w for w in WIDTHS if w in set(sizes(tensors, r"^unet:\d+:down$", -1))), None)
    if width is None and re.search(r"^lora_te2_", text, re.M):
        return "Stable Diffusion XL"
    return WIDTHS.get(width or 0, "")


def counted(modules: Mapping[str, set[str]]) -> str:
    """How many modules each network has: "192 in the U-Net, 72 in the text encoder"."""
    counts: Counter[str] = Counter()
    for module in modules:
        text = next((name for name, pattern in TEXT if re.search(pattern, module)), "")
        counts[text or "denoiser"] += 1
    return f"{len(modules):,} ({', '.join(f'{count:,} in the {name}' for name, count in counts.most_common())})"


def alpha(modules: Mapping[str, set[str]], roles: set[str], names: str) -> str:
    """The adapter's strength, as far as the file has it."""
    scales = sum(1 for each in modules.values() if "alpha" in each)
    whole = {"lokr_w1", "lokr_w2"} <= roles <= {"lokr_w1", "lokr_w2", "alpha"}
    if whole:
        return "not used: both factors of the products are whole"
    if scales == 0 and names == "PEFT's":
        return "in adapter_config.json beside it: lora_alpha / r is its scale"
    if scales == 0:
        return "none, so its scale is 1"
    return "with each module" if scales == len(modules) else f"with {scales:,} of {len(modules):,} modules"


def halves(modules: Mapping[str, set[str]]) -> str:
    """A note of modules that have one half of a product and lack the other."""
    pairs = (("lora_down", "lora_up"), ("lora_A", "lora_B"), ("down", "up"))
    lacking = sum(1 for roles in modules.values() if any((a in roles) != (b in roles) for a, b in pairs))
    return (
        f"{lacking:,} modules have one half of their product and lack the other; download it again" if lacking else ""
    )


def as_inversion(tensors: Shapes) -> Finding | None:
    """What kind of textual inversion these tensors are: nothing but a few vectors as wide as a text encoder is."""
    shapes = [shape for _, shape in tensors.values()]
    if not 1 <= len(shapes) <= 64 or any(shape is None or not 1 <= len(shape) <= 2 for shape in shapes):
        return None
    widths = [shape[-1] for shape in shapes if shape]
    vectors = [shape[0] if len(shape) == 2 else 1 for shape in shapes if shape]
    if any(width not in ENCODERS for width in widths) or sum(vectors) > MAX_VECTORS:
        return None
    pattern = r"<.+>|emb_params|emb2?|clip_[lg]|t5xxl|text_encoders_\d|string_to_param\..*|[^.]+"
    if not all(re.fullmatch(pattern, name) for name in tensors):
        return None
    base = FOR.get(tuple(sorted(set(widths))))
    facts = {
        "vectors": ", ".join(
            f"{name}: {count} for {ENCODERS[width]}"
            for name, count, width in zip(tensors, vectors, widths, strict=True)
        ),
        "names": inversion_names(set(tensors)),
    }
    return Finding("a textual inversion" + (f" for {base}" if base else ""), facts)


def inversion_names(names: set[str]) -> str:
    """Whose names a textual inversion bears."""
    for who, keys in (
        ("kohya's", {"emb_params"}),
        ("ComfyUI's and kohya's for SDXL", {"clip_l", "clip_g"}),
        (
            "those of Replicate's trainer; special_params.json has the words that they stand for",
            {"text_encoders_0"},
        ),
        ("oss-roettger's", {"emb", "emb2"}),
    ):
        if keys <= names:
            return who
    if any(name.startswith("string_to_param.") for name in names):
        return "AUTOMATIC1111's"
    return "diffusers': each vector under its word"
