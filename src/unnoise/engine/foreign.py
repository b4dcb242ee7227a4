"""Models of other tools as models of ours: opened, loaded, with their tokenizers and their calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unnoise.core.condition import Condition
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.encoders.vocabulary import clip_json, of_merges
from unnoise.engine.conditioner import Layout
from unnoise.engine.model import Model
from unnoise.foreign import read
from unnoise.notes import say
from unnoise.weights.config import from_json
from unnoise.weights.families.family import DENOISER
from unnoise.weights.model import save_model
from unnoise.weights.opening import Opened, open_model
from unnoise.weights.quick import quick_hash
from unnoise.weights.record import MODEL

MAX_VOCABULARY = 2**24  # bytes of a vocabulary beside a model
FIRST_LABEL = 999.0  # the noisiest level of a table of 1000


@dataclass(frozen=True)
class Choices:
    """What a person may say of a model; of those of other tools all of it.

    Attributes:
        parts: {part: file or folder to take it from}, in place of the model's own.
        family: its name, where it is recognised wrongly or not at all.
        prediction: what its denoiser predicts: "noise" or "v".
        download: whether a model that is named may be fetched from a hub.
        decoder: what decodes pictures: "own", "tiny", "linear", or a file; see ``engine.decoders``. None is the own,
            with previews by another where the own is slow.
    """

    parts: Mapping[str, Path] = field(default_factory=dict)
    family: str | None = None
    prediction: str | None = None
    download: bool = False
    decoder: str | None = None


def load_foreign(path: Path, device: torch.device, dtype: torch.dtype, choices: Choices = Choices()) -> Model:
    """The model of a file or folder that other tools made; what was matched and assumed goes to the standard error.

    Raises:
        UnnoiseError: it cannot be opened; see ``weights.opening.open_model``.
    """
    opened = open_decided(path, choices)
    say("\n".join(opened.report()))
    modules = opened.load(dict.fromkeys(opened.parts, device), dtype)
    record = dict(opened.record)
    record["files"] = {
        f"{name}/{file.name}": quick_hash(file) for name, part in opened.parts.items() for file in part.source.files
    }
    tokenizers = {name: tokenizer_of(opened, name) for name in opened.family.towers}
    layout: Layout = from_json(Layout, record["layout"], f"{MODEL}: layout")
    return Model(modules, tokenizers, record, layout=layout)


def open_decided(path: Path, choices: Choices = Choices()) -> Opened:
    """A published model, opened; where its file does not say what its network predicts, a trial does.

    Raises:
        UnnoiseError: it cannot be opened; see ``weights.opening.open_model``.
    """
    from unnoise.weights.lookup import parts_for  # large tables, which models of ours do without

    opened = open_model(path, choices.parts, choices.family, choices.prediction, parts_for)
    if not opened.undecided:
        return opened
    network = opened.load(dtype=torch.float32, only=(DENOISER,))[DENOISER]
    word = "v" if predicts_v(network) else "noise"
    decided = open_model(path, choices.parts, choices.family, word, parts_for)
    line = f"prediction: {word} (found by a trial of the network; --prediction overrules it)"
    return replace(decided, assumed=(line, *decided.assumed[1:]))


def tokenizer_of(opened: Opened, name: str) -> Tokenizer:
    """The tokenizer of a tower: the vocabulary in its folder, or CLIP's own, which comes with the package.

    Raises:
        UnnoiseError: the vocabulary beside the model is damaged.
    """
    part = opened.parts[name]
    folder = part.source.path.parent / part.piece.folder.replace("text_encoder", "tokenizer")
    texts = {
        each: read(folder / each, MAX_VOCABULARY).decode("utf-8", "replace")
        for each in ("vocab.json", "merges.txt", "tokenizer.json")
        if part.source.path.is_dir() and (folder / each).is_file()
    }
    if "vocab.json" in texts and "merges.txt" in texts:
        json = of_merges(texts["vocab.json"], texts["merges.txt"])
    else:
        json = texts.get("tokenizer.json") or clip_json()
    return Tokenizer(json, part.config.length, part.config.pad)


def save_as_ours(opened: Opened, path: Path, dtype: torch.dtype | None = None) -> None:
    """Writes a published model as a model folder of ours, which opens without a question.

    Args:
        opened: it, with its prediction decided.
        path: the folder; must not exist.
        dtype: of its weights; None keeps for each part the widest that its file has.

    Raises:
        UnnoiseError: the folder exists, the disk is full, or weights are not finite.
    """
    modules, record = opened.load(), opened.record
    widest = {
        name: max((weight.dtype for weight in module.parameters()), key=lambda kind: (kind.itemsize, str(kind)))
        for name, module in modules.items()
    }
    info = {key: value for key, value in record.items() if key not in ("parts", "files", "format")}
    texts = {tokenizer_file(name): tokenizer_of(opened, name).json for name in opened.family.towers}
    save_model(path, modules, info, texts, widest if dtype is None else dtype)


def tokenizer_file(part: str) -> str:
    """The file of a model folder that holds the tokenizer of a text tower."""
    return "tokenizer.json" if part == "text" else f"{part}.tokenizer.json"


@torch.inference_mode()
def predicts_v(denoiser: nn.Module) -> bool:
    """Whether the U-Net of Stable Diffusion 2 predicts v, by one call: nothing else tells.

    At the noisiest level v is about -x0, so that the network's answer to a grey state lies far below the state; noise
    would be the state itself. The trial of stable-diffusion.cpp.
    """
    network: Any = denoiser.network
    weights = next(network.parameters())
    config = network.config
    x = torch.full((1, config.channels_out, 8, 8), 0.5, device=weights.device, dtype=weights.dtype)
    tokens = torch.full((1, 2, config.text_width), 0.5, device=x.device, dtype=x.dtype)
    more = config.channels_in - config.channels_out
    concat = x.new_zeros(1, more, 8, 8) if more else None
    output, _ = network(x, torch.full((1,), FIRST_LABEL, device=x.device), Condition(tokens=tokens, concat=concat))
    return bool((output - x).float().mean() < -1)
