"""What recipes share that start from a trained folder's weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unnoise.engine.load import model_folder
from unnoise.errors import UnnoiseError
from unnoise.weights.model import load_model
from unnoise.weights.parts import describe
from unnoise.weights.record import read_file


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
