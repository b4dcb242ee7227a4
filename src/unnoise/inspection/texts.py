"""Text files: original configurations (YAML, by line patterns), TOML, lists of tensors, vocabularies, captions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from unnoise.foreign import parse_toml
from unnoise.inspection.answer import Answer, names
from unnoise.inspection.descriptions import listed
from unnoise.weights.shapes import MAX_NAME

# blanks are counted, and no pattern may look far ahead: a text that is made for it would take time in its square
LIST = re.compile(r'^[ \t]{0,40}"?([\w.<>:-]{1,1024}?)"?[ \t]{0,4}:?[ \t]{0,4}\[([\d, ]{0,200})\],?[ \t]{0,4}$', re.M)
ENGINE, LATENT = r"target: sgm\.[\w.]{1,80}DiffusionEngine", r"target: [\w.]{0,80}LatentDiffusion"
YAML = (  # (what it is, patterns that must all be in it)
    ("the refiner of Stable Diffusion XL", (ENGINE, "aesthetic_score")),
    ("Stable Diffusion XL", (ENGINE, "FrozenOpenCLIPEmbedder2")),
    ("a model of generative-models", (ENGINE,)),
    ("Stable Diffusion 3, by AUTOMATIC1111 and Forge", (r"target: [\w.]{0,80}SD3Inferencer",)),
    ("Stable Diffusion 2, for inpainting", (r"target: [\w.]{0,80}LatentInpaintDiffusion", "FrozenOpenCLIPEmbedder")),
    ("Stable Diffusion for inpainting", (r"target: [\w.]{0,80}LatentInpaintDiffusion",)),
    ("an upscaler of Stable Diffusion", (r"target: [\w.]{0,80}LatentUpscale\w{0,40}Diffusion",)),
    ("Stable Diffusion for editing by instruction", (r"target: [\w.]{0,80}ddpm_edit\.LatentDiffusion",)),
    ("Stable Diffusion 2", (LATENT, "FrozenOpenCLIPEmbedder")),
    ("Stable Diffusion 1", (LATENT, "FrozenCLIPEmbedder")),
    ("a control network", (r"target: [\w.]{0,80}ControlLDM",)),
    ("an autoencoder", (r"target: [\w.]{0,80}AutoencoderKL",)),
)
LINES = {  # a fact, and the line that states it
    "prediction": r"^ {1,40}parameterization: \"?(\w{1,20})", "context": r"^ {1,40}context_dim: ([\d, \[\]]{1,60})",
    "scale of latents": r"^ {1,40}scale_factor: ([\d.]{1,20})", "shift": r"^ {1,40}shift: ([\d.]{1,20})",
}  # fmt: skip
TRAINING = ("pretrained_model_name_or_path", "train_data_dir", "network_module", "network_args", "output_name",
            "learning_rate", "resolution", "max_train_steps", "max_train_epochs", "algo", "preset")  # fmt: skip


def describe_text(text: str, path: Path) -> Answer:
    """What a text file is: by its lines, and where these do not show it, by the end of its name."""
    suffix = path.suffix.lower()
    rows = (suffix in (".yaml", ".yml", ".txt", "") and yaml(text), suffix in (".toml", "") and toml(text))
    for answer in (*rows, json_lines(text), key_list(text), merges(text)):
        if answer:
            return answer
    lines = [line for line in text.splitlines() if line.strip()]
    if suffix in (".yaml", ".yml"):
        keys = re.findall(r"^([\w-]{1,80}):", text, re.M)
        return Answer("YAML of no kind that is known here", "YAML", {"keys": names(keys)})
    facts = {"lines": len(lines), "begins": " ".join(lines[0].split())[:120] if lines else ""}
    if suffix in (".txt", ".cap", ".caption", ".tags"):
        tags = lines and len(lines) == 1 and lines[0].count(",") >= 2
        return Answer(
            "a caption: tags with commas between them" if tags else "text, such as captions, a line each", "text", facts
        )
    return Answer("text", "text", facts)


def yaml(text: str) -> Answer | None:
    """An original configuration, read as text: no YAML is parsed, so nothing in it can do anything."""
    head = text[:65_536]
    what = next((what for what, patterns in YAML if all(re.search(p, head) for p in patterns)), None)
    if what is None:
        return None
    facts: dict[str, Any] = {key: m[1].strip() for key, line in LINES.items() if (m := re.search(line, head, re.M))}
    if facts.get("prediction") == "v":
        facts["prediction"] = "v, not noise"
    network = re.search("unet_config|network_config", head)
    if network and (match := re.search(r"^ {1,40}in_channels: (\d{1,9})", head[network.end() :], re.M)):
        facts["channels that it takes"] = int(match[1])
    embedders = re.findall(r"^[ -]{1,40}input_key: (\w{1,60})", head, re.M)
    if embedders:
        facts["conditioned on"] = f"{len(embedders)}: {names(embedders)}"
    note = "" if len(text) > 400 else "the weights must tell everything else"
    return Answer(f"an original configuration: {what}", "YAML", facts, note)


def toml(text: str) -> Answer | None:
    """Settings of a training or of its data sets."""
    try:
        value = parse_toml(text)
    except ValueError:
        return None
    if not value:
        return None
    if "datasets" in value:
        sets = (
            [each for each in value["datasets"] if isinstance(each, dict)]
            if isinstance(value["datasets"], list)
            else []
        )
        lists = [each["subsets"] for each in sets if isinstance(each.get("subsets"), list)]
        subsets = [subset for several in lists for subset in several if isinstance(subset, dict)]
        folders = dict.fromkeys(str(s.get("image_dir")) for s in subsets)
        facts: dict[str, Any] = {"data sets": len(sets), "subsets": len(subsets), "folders": names(folders)}
        facts["resolutions"] = names(str(each.get("resolution")) for each in sets)
        return Answer("the data sets of a training, kohya's layout", "TOML", facts)
    if "dataset" in value:
        fault = "its table is called dataset, which no program has read since 2023; today it is datasets"
        mend = "rename [[dataset]] to [[datasets]] and [[dataset.subset]] to [[datasets.subsets]]"
        return Answer(
            "the data sets of a training, kohya's first layout", "TOML", {"tables": names(value)}, "", fault, mend
        )
    flat = {k: v for part in value.values() if isinstance(part, dict) for k, v in part.items()} | value
    settings = {key: flat[key] for key in TRAINING if key in flat}
    if len(settings) >= 2:
        return Answer(
            "the settings of a training by kohya's sd-scripts", "TOML", {k: str(v)[:200] for k, v in settings.items()}
        )
    return Answer("TOML of no kind that is known here", "TOML", {"tables": names(value)})


def json_lines(text: str) -> Answer | None:
    """One JSON object a line: captions of a picture set, or a log."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or not lines[0].lstrip().startswith("{"):
        return None
    try:
        first = json.loads(lines[0])
    except (ValueError, RecursionError):
        return None
    if not isinstance(first, dict):
        return None
    if "file_name" in first:
        captions = next((key for key in ("text", "caption", "captions", "prompt") if key in first), "none")
        return Answer(
            "captions of a picture set (an imagefolder's metadata.jsonl)",
            "JSON lines",
            {"pictures": len(lines), "captions under": captions},
        )
    return Answer("JSON, one object a line", "JSON lines", {"lines": len(lines), "keys": names(first)})


def key_list(text: str) -> Answer | None:
    """A list of tensors: lines of a name and a shape."""
    rows = LIST.findall(text) if len(LIST.findall(text[:65_536])) >= 3 else []
    if 3 * len(rows) < text.count("\n") or not rows:
        return None
    tensors = {
        name[:MAX_NAME]: ("?", tuple(int(n[:15]) for n in re.findall(r"\d+", shape)[:16])) for name, shape in rows
    }
    return listed(tensors, "text")


def merges(text: str) -> Answer | None:
    """The merges of a byte-pair tokenizer."""
    first, _, rest = text.partition("\n")
    if not re.match(r'"?(bpe_simple_vocab_16e6\.txt)?#version: ', first):
        return None
    count = sum(1 for line in rest.splitlines() if len(line.split(" ")) == 2)
    clip = " of CLIP" if rest.startswith("i n\nt h\na n\n") else ""
    return Answer(f"the merges of a byte-pair tokenizer{clip}", "text", {"merges": count})
