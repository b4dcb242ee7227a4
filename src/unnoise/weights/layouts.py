"""Published models written in another layout: one file in original names, or a folder in diffusers' layout.

The same key tables that open a model write it, so that a round trip gives back each number. Tensors are written one by
one, and nothing of a model that is only written stays in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise import __version__
from unnoise.core.denoiser import Denoiser
from unnoise.encoders.vocabulary import clip_files
from unnoise.errors import UnnoiseError
from unnoise.files import new_file, new_folder, write_json
from unnoise.weights import keys
from unnoise.weights.families.family import DENOISER, Family, Piece, families
from unnoise.weights.opening import Opened
from unnoise.weights.record import read_record
from unnoise.weights.schedules import written_schedule
from unnoise.weights.shapes import Place
from unnoise.weights.shards import Shards
from unnoise.weights.survey import ZEROS
from unnoise.weights.write import Planned, write_tensors

VERSION = "0.35.0"  # of diffusers, whose layout it is
MARKS = {"v": "v_pred", "zero-snr": "ztsnr"}  # empty tensors by which ComfyUI knows an SDXL that predicts v
STEM = {"networks": "diffusion_pytorch_model", "autoencoders": "diffusion_pytorch_model", "encoders": "model"}
PAD_TOKENS = {None: "<|endoftext|>", 0: "!"}  # of CLIP's vocabulary


class Content(NamedTuple):
    """A part to be written: of which piece, its config, and what gives (our name, tensor) of all its weights."""

    piece: Piece
    config: Any
    tensors: Callable[[], Iterable[tuple[str, Tensor]]]


class Contents(NamedTuple):
    """A model to be written: where it lies, its family, its record, its parts, and whether its prediction is open."""

    path: Path
    family: Family
    record: Mapping[str, Any]
    parts: Mapping[str, Content]
    undecided: bool = False


def contents(opened: Opened) -> Contents:
    """A published model that was opened, to be written."""
    parts = {name: Content(part.piece, part.config, part.tensors) for name, part in opened.parts.items()}
    return Contents(opened.path, opened.family, opened.record, parts, opened.undecided)


def own_contents(folder: Path) -> Contents:
    """A model folder of ours whose parts are those of a published family, to be written.

    Raises:
        UnnoiseError: it is of no such family, or damaged.
    """
    record = read_record(folder)
    family = families().get(str(record.get("family")))
    if family is None or not family.pieces.keys() <= record["parts"].keys():
        what = f"{folder} is a model of no published family, which no other program draws with"
        raise UnnoiseError(what, f"families: {', '.join(families())}")
    shards = Shards(folder, record)
    parts = {}
    for name, piece in family.pieces.items():
        module, places = shards.fitted(name)
        network: Any = module.network if isinstance(module, Denoiser) else module

        def tensors(places: Mapping[str, Place] = places) -> Iterator[tuple[str, Tensor]]:
            return ((key.removeprefix("network."), tensor) for key, tensor in shards.tensors(places))

        parts[name] = Content(piece, network.config, tensors)
    return Contents(folder, family, record, parts)


def planned(part: Content, layout: str, prefix: str, dtype: torch.dtype | None) -> Iterator[Planned]:
    """The tensors of a part under the names of a layout, in the file's precision where ``dtype`` is None."""
    ours = dict(part.tensors())
    for row in part.piece.names.table(part.config, layout):
        first = ours[row.ours[0]]
        shape = keys.shapes_to_theirs(row, {name: tuple(ours[name].shape) for name in row.ours})
        kind = dtype if dtype is not None and first.is_floating_point() else first.dtype

        def make(row: keys.Row = row) -> Tensor:
            return keys.to_theirs(row, ours)

        yield Planned(prefix + row.theirs, kind, shape, make)


def write_original(model: Contents, path: Path, dtype: torch.dtype | None = None) -> int:
    """Writes one safetensors file in original names, whole or not at all; the number of its tensors.

    Raises:
        UnnoiseError: the file exists, the disk is full, or a number does not fit into the dtype.
    """
    tensors: list[Planned] = []
    for part in model.parts.values():
        prefix, layout = part.piece.prefixes[0]
        tensors += planned(part, layout, prefix, dtype)
    entry = model.record["parts"][DENOISER]
    metadata = {
        "modelspec.title": str(model.record["name"]),
        "modelspec.prediction_type": "v" if entry["prediction"] == "v" else "epsilon",
    }
    if model.undecided:
        del metadata["modelspec.prediction_type"]
    if model.family.marks_v:
        for word, mark in MARKS.items():
            if entry["prediction"] == word or entry["path"].startswith(word):
                tensors.append(Planned(mark, torch.float32, (0,), lambda: torch.empty(0)))
    with new_file(path) as scratch:
        write_tensors(scratch, tensors, metadata)
    return len(tensors)


def write_diffusers(model: Contents, path: Path, dtype: torch.dtype | None = None) -> int:
    """Writes a folder in diffusers' layout, whole or not at all; the number of its tensors.

    Raises:
        UnnoiseError: the folder exists, the disk is full, or a number does not fit into the dtype.
    """
    if model.undecided:
        raise UnnoiseError(
            f"{model.path} does not say what it predicts, and a folder must", "say it: --prediction noise, or v"
        )
    count = 0
    index: dict[str, Any] = {
        "_class_name": pipeline_of(model),
        "_diffusers_version": VERSION,
        "_unnoise": __version__,
    }
    with new_folder(path) as folder:
        for part in model.parts.values():
            own = folder / part.piece.folder
            own.mkdir()
            tensors = list(planned(part, part.piece.layout, "", dtype))
            write_tensors(own / f"{STEM[part.piece.kind]}.safetensors", tensors, {"format": "pt"})
            write_json(own / "config.json", part.piece.names.to_config(part.config))
            index[part.piece.folder] = list(part.piece.library)
            count += len(tensors)
            if part.piece.kind == "encoders":
                name = part.piece.folder.replace("text_encoder", "tokenizer")
                write_tokenizer(folder / name, part.config)
                index[name] = ["transformers", "CLIPTokenizer"]
        (folder / "scheduler").mkdir()
        schedule = written_schedule(model.record["parts"][DENOISER], model.record["defaults"])
        write_json(folder / "scheduler/scheduler_config.json", schedule)
        index["scheduler"] = ["diffusers", schedule["_class_name"]]
        index |= model.family.index
        if ZEROS in index:
            index[ZEROS] = model.record["layout"].get("empty") == "zeros"
        write_json(folder / "model_index.json", index)
    return count


def pipeline_of(model: Contents) -> str:
    """The class of diffusers that draws with it."""
    config = model.parts[DENOISER].config
    names = model.family.pipelines
    word = "Inpaint" if config.channels_in != config.channels_out else "Consistency" if config.guidance_width else ""
    return next((name for name in names if word and word in name), names[0])


def write_tokenizer(folder: Path, config: Any) -> None:
    """Writes CLIP's vocabulary as transformers has it."""
    folder.mkdir()
    for name, text in clip_files().items():
        (folder / name).write_text(text, encoding="utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = PAD_TOKENS.get(config.pad, "<|endoftext|>")
    write_json(folder / "special_tokens_map.json", special)
    more = {"model_max_length": config.length, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    write_json(folder / "tokenizer_config.json", special | more | {"add_prefix_space": False, "errors": "replace"})
