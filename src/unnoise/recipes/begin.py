"""What recipes share that start from a trained folder's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unnoise.core.autoencoder import Autoencoder
from unnoise.core.denoiser import Denoiser
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.engine.load import default_model, model_folder, read_tokenizer
from unnoise.errors import UnnoiseError
from unnoise.weights.model import load_model
from unnoise.weights.parts import describe
from unnoise.weights.record import read_file


@dataclass(frozen=True)
class Beginning:
    """What a training of a denoiser starts from.

    Attributes:
        parts: "autoencoder", the text tower, and "denoiser" where one is trained further.
        tokenizer: of the tower.
        trained: {part: the trainings that it went through}.
        tower: what the tower's part is called.
        record: what the record of the new model takes over, such as its ``layout``.
        precision: of the new model's weights, or {part: precision}.
    """

    parts: Mapping[str, nn.Module]
    tokenizer: Tokenizer
    trained: Mapping[str, Any]
    tower: str = "text"
    record: Mapping[str, Any] = field(default_factory=dict)
    precision: torch.dtype | Mapping[str, torch.dtype] = torch.bfloat16


def begin_from(init: Path, modules: Mapping[str, nn.Module], part: str, tokenizer: str | None = None) -> list[Any]:
    """Takes over the weights of a trained folder; returns how its part was trained, as its record has it.

    Args:
        init: a model folder or that of a finished training.
        modules: the components to take, by their names in the folder.
        part: whose history is returned.
        tokenizer: the tokenizer.json that the modules are for, where they read captions.

    Raises:
        UnnoiseError: a component or the tokenizer there is another one.
    """
    folder = model_folder(init)
    parts, record = load_model(folder, list(modules))
    for name, module in modules.items():
        ours, theirs = describe(module), describe(parts[name])
        if ours != theirs:
            raise UnnoiseError(f"--init has another {name}: {theirs}, not {ours}", "give this one the shape of that")
    if tokenizer is not None and read_file(folder, record, "tokenizer.json").decode() != tokenizer:
        raise UnnoiseError("--init has another tokenizer: it was trained on other captions", "start without --init")
    for name, module in modules.items():
        module.load_state_dict(parts[name].state_dict())
    return history(record, part)


def same_latents(one: nn.Module, other: nn.Module) -> bool:
    """Whether two autoencoders differ in their decoders alone: what knows the latents of one knows the other's."""
    ours, theirs = one.state_dict(), other.state_dict()
    names = {name for name in ours.keys() | theirs.keys() if not name.startswith("decoder.")}
    return all(name in ours and name in theirs and torch.equal(ours[name], theirs[name]) for name in names)


def history(record: Mapping[str, Any], part: str) -> list[Any]:
    """The trainings that a part of a model went through, by its record; empty where it has no such list."""
    trained = record.get("trained", {})
    return list(trained.get(part, [])) if isinstance(trained, dict) else []


def starting_parts(
    autoencoder: Path | Callable[[Tensor], Autoencoder] | None,
    text: Path | None,
    init: Path | None,
    pixels: Callable[[], Tensor],
) -> Beginning:
    """The parts that a training starts from, their tokenizer, and how each was trained.

    Args:
        autoencoder: a model folder, or what makes one of the pictures from ``pixels``.
        text, init: model folders.
        pixels: the uint8 pictures (N, 3, H, W) that are trained on.

    Raises:
        UnnoiseError: ``init`` beside another text tower or other latents than its own: a denoiser knows only the words
            and the latents that it was trained with.
    """
    if init is not None and text is not None:
        raise UnnoiseError("--init brings its own text tower", "leave out --text")
    text_folder = model_folder(text or init or default_model())
    if callable(autoencoder):
        parts, auto_record = dict[str, nn.Module](autoencoder=autoencoder(pixels())), dict[str, Any]()
    else:
        parts, auto_record = load_model(model_folder(autoencoder or init or default_model()), ["autoencoder"])
    others, record = load_model(text_folder, ["text", "denoiser"] if init else ["text"])
    if init is not None and autoencoder is not None:
        own, _ = load_model(text_folder, ["autoencoder"])
        if not same_latents(own["autoencoder"], parts["autoencoder"]):
            hint = "leave --autoencoder out, or name one that was trained with --keep-latents"
            raise UnnoiseError("--autoencoder makes other latents than the denoiser of --init knows", hint)
    if "tokenizer.json" not in record["files"]:
        raise UnnoiseError(f"the model at {text_folder} has no tokenizer.json", "name another model folder")
    tokenizer = read_tokenizer(text_folder, record, others["text"])
    histories = {"autoencoder": history(auto_record, "autoencoder"), "text": history(record, "text")}
    return Beginning(parts | others, tokenizer, histories | {"denoiser": history(record, "denoiser") if init else []})


def warm_start(denoiser: Denoiser, start: nn.Module) -> None:
    """Takes over the weights of a trained denoiser.

    Raises:
        UnnoiseError: it is of another kind: its network, path, prediction or noise label differ.
    """
    ours, theirs = describe(denoiser), describe(start)
    for key in ours:
        if ours[key] != theirs[key]:
            raise UnnoiseError(
                f"--init has another {key}: {theirs[key]}, not {ours[key]}", "train it by its own recipe"
            )
    denoiser.load_state_dict(start.state_dict())
