"""Folders: models of ours and of diffusers, PEFT adapters, trainings, picture sets, the models folder of ComfyUI."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unnoise.errors import UnnoiseError
from unnoise.foreign import parse_json, read
from unnoise.inspection.answer import Answer, names
from unnoise.inspection.descriptions import describe
from unnoise.inspection.published import described, header_of
from unnoise.weights.header import Header, read_header
from unnoise.weights.kinds import kind_of_tensors
from unnoise.weights.survey import survey

FOLDER = "a folder"
MAX_ENTRIES = 10_000
MAX_RECORD = 2**20  # bytes of a record that is read
LOOKED_AT = 12  # files whose kinds are listed one by one
MODEL, RUN, SET = "model.json", "run.json", "manifest.json"  # as their writers have them, which import torch
PIPELINE, PEFT, CONFIG = "model_index.json", "adapter_config.json", "config.json"
SETTINGS, MAX_PARTS = ("dtype", "path", "prediction", "noise_label"), 40  # of a part, and the number of parts listed
WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
CAPTIONS = (".txt", ".caption", ".cap")
COMFY = {
    "checkpoints", "loras", "vae", "clip", "text_encoders", "unet", "diffusion_models", "embeddings", "controlnet",
    "upscale_models", "clip_vision", "style_models",
}  # fmt: skip
WEBUI = {"Stable-diffusion", "Lora", "VAE", "ESRGAN", "hypernetworks", "VAE-approx", "ControlNet"}


def describe_folder(folder: Path, look: Callable[[Path], Answer]) -> Answer:
    """What a folder is; ``look`` describes a file in it.

    Raises:
        UnnoiseError: it cannot be read, or a file of weights in it is damaged.
    """
    try:
        with os.scandir(folder) as listing:
            entries = {entry.name: entry.is_dir() for entry in itertools.islice(listing, MAX_ENTRIES)}
    except OSError as error:
        raise UnnoiseError(f"{folder} cannot be read ({error.strerror})", "check its rights") from None
    if MODEL not in entries and (folder / "model" / MODEL).is_file():
        answer = our_model(folder / "model")
        return answer._replace(what=f"a finished training: {answer.what}")
    for name, read_folder in ((MODEL, our_model), (RUN, training), (PIPELINE, diffusers), (PEFT, peft)):
        if name in entries:
            return read_folder(folder)
    if SET in entries and "pictures.parquet" in entries:
        record = record_of(folder / SET)
        keys = ("pictures", "size", "origin", "format")
        return Answer("a picture set of unnoise", FOLDER, {str(key): record[key] for key in keys if key in record})
    inner = {name for name, is_folder in entries.items() if is_folder}
    for who, folders in (("ComfyUI", COMFY), ("AUTOMATIC1111 or Forge", WEBUI)):
        if len(inner & folders) >= 2:
            numbers = {name: counts(folder / name) for name in sorted(inner & folders)}
            return Answer(f"the models folder of {who}", FOLDER, numbers)
    return mixed(folder, sorted(name for name, is_folder in entries.items() if not is_folder), len(inner), look)


def record_of(path: Path) -> dict[str, Any]:
    """The record in a JSON file; empty where there is none or it is damaged: weights are described all the same."""
    try:
        value = parse_json(read(path, MAX_RECORD))
    except (UnnoiseError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def our_model(folder: Path) -> Answer:
    """A model folder of unnoise, by its weights' headers and its record."""
    whole = shards(sorted(folder.glob("*.safetensors"))[:1000])
    record = record_of(folder / MODEL)
    parts = record.get("parts", record.get("components"))  # as today's format calls them, and as the first did
    entries = (
        {part: entry for part, entry in parts.items() if isinstance(entry, dict)} if isinstance(parts, dict) else {}
    )
    facts = {
        str(part): ", ".join(
            [str(entry.get("name")), *(f"{key.replace('_', ' ')} {entry[key]}" for key in SETTINGS if key in entry)]
        )
        for part, entry in list(entries.items())[:MAX_PARTS]
    }
    what = kind_of_tensors(whole.tensors, whole.metadata).what
    return Answer("an unnoise model" if what == "unknown" else what, FOLDER, facts, header=whole)


def shards(files: list[Path]) -> Header:
    """The headers of several files as one, without the digests that distinguish one of our shards from another."""
    headers = {file.name: read_header(file) for file in files}
    tensors: dict[str, tuple[str, tuple[int, ...] | None]] = {}
    for file, header in headers.items():  # parts text.a and text.a.b may both have a tensor text.a.b.weight
        tensors |= {f"{file}: {name}" if name in tensors else name: each for name, each in header.tensors.items()}
    metadata = {key: value for header in headers.values() for key, value in header.metadata.items()}
    return Header(
        tensors,
        {key: value for key, value in metadata.items() if key != "sha256"},
        sum(header.size for header in headers.values()),
    )


def training(folder: Path) -> Answer:
    """A training of unnoise that has not ended."""
    record = record_of(folder / RUN)
    steps = sorted(path.name for path in itertools.islice((folder / "checkpoints").glob("step-*"), MAX_ENTRIES))
    facts = {
        "recipe": str(record.get("recipe", "unknown"))[:80],
        "checkpoints": len(steps),
        "newest": steps[-1] if steps else "none",
    }
    return Answer("a training of unnoise, not finished", FOLDER, facts, "`unnoise runs` tells how far it came")


def diffusers(folder: Path) -> Answer:
    """A model in diffusers' layout: each part, and whether its weights are there."""
    record = record_of(folder / PIPELINE)
    about = describe(record, folder / PIPELINE)
    facts, missing = {}, []
    for part, entry in list(record.items())[:40]:
        if not isinstance(entry, list) or len(entry) != 2 or not entry[1]:
            continue
        files = (
            [name for name, _ in files_of(folder / part)] if Path(part).name == part and part not in ("", "..") else []
        )
        weights = [name for name in files if name.endswith(WEIGHTS)]
        facts[str(part)] = f"{entry[1]}, {f'{len(weights)} files of weights' if weights else f'{len(files)} files'}"
        wants = not re.search("Scheduler|Tokenizer|Processor|Extractor", str(entry[1]))
        if not files or (wants and not weights):
            missing.append(part)
    note = f"incomplete: nothing to load for {names(missing)}; download it again" if missing else ""
    name = str(record.get("_class_name", "no name"))[:80]
    answer = Answer(f"a model in diffusers' layout: {name}", FOLDER, facts or about.facts, note)
    try:
        model = survey(folder)
    except UnnoiseError as error:
        other = f"it cannot be drawn with: {error.what}"
        return answer._replace(note=f"{note}; {other}" if note else other)
    return described(folder, answer)._replace(header=header_of(model))


def peft(folder: Path) -> Answer:
    """An adapter as PEFT saves it: settings and weights."""
    settings = describe(record_of(folder / PEFT), folder / PEFT)
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return settings._replace(what="an adapter as PEFT saves it, without weights", format=FOLDER)
    header = read_header(file)
    finding = kind_of_tensors(header.tensors, header.metadata)
    scale = settings.facts.get("scale")
    strength = {} if scale is None else {"alpha": f"by its settings; its scale is {scale:g}"}
    return Answer(
        f"{finding.what}, as PEFT saves it",
        FOLDER,
        {**finding.facts, **settings.facts, **strength},
        finding.note,
        header=header,
    )


def files_of(folder: Path) -> Iterator[tuple[str, int]]:
    """(name, bytes) of the files in a folder, the first some thousand."""
    try:
        with os.scandir(folder) as listing:
            for entry in itertools.islice(listing, MAX_ENTRIES):
                if entry.is_file():
                    yield entry.name, entry.stat().st_size
    except OSError:
        return


def counts(folder: Path) -> str:
    """How many files of weights a folder has, and how large they are together."""
    sizes = [size for name, size in files_of(folder) if name.lower().endswith(WEIGHTS)]
    return f"{len(sizes):,} files of weights, {sum(sizes):,} bytes"


def mixed(folder: Path, files: list[str], num_folders: int, look: Callable[[Path], Answer]) -> Answer:
    """A folder that no record describes: a part of a model, shards, pictures with captions, or several files."""
    ends = Counter(Path(name).suffix.lower() for name in files)
    weights = [name for name in files if name.lower().endswith(WEIGHTS)]
    tensors = [name for name in weights if name.lower().endswith(".safetensors")]
    pictures = sum(ends[end] for end in PICTURES)
    facts: dict[str, Any] = {"files": len(files), "folders": num_folders}
    if tensors and (len(tensors) == 1 or all(re.search(r"-\d+-of-\d+\.safetensors$", name) for name in tensors)):
        whole = shards([folder / name for name in tensors[:1000]])
        finding = kind_of_tensors(whole.tensors, whole.metadata)
        if CONFIG in files:
            facts |= dict(describe(record_of(folder / CONFIG), folder / CONFIG).facts)
        return Answer(finding.what, FOLDER, {**facts, **finding.facts}, finding.note, header=whole)
    if weights:
        for name in weights[:LOOKED_AT]:
            try:
                facts[name] = look(folder / name).what
            except UnnoiseError as error:
                facts[name] = error.what
        return Answer(f"a folder with {len(weights):,} files of weights", FOLDER, facts)
    if pictures:
        facts |= {"pictures": pictures, "captions beside them": sum(ends[end] for end in CAPTIONS)}
        tables = [name for name in files if name in ("metadata.jsonl", "metadata.csv")]
        note = "`unnoise data folder` makes a picture set of it"
        return Answer(
            "a folder of pictures", FOLDER, facts | ({"captions in": ", ".join(tables)} if tables else {}), note
        )
    facts |= {end or "without an end": count for end, count in ends.most_common(12)}
    return Answer("a folder" if files or num_folders else "an empty folder", FOLDER, facts)
