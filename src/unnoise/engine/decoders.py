"""What decodes a model's latents in place of its own autoencoder: a tiny autoencoder, or a linear map.

A choice is "own", "tiny" (a tiny autoencoder for the model's family from the list of models; the linear map where there
is none), "linear" (a linear map that is fitted to the model's own decoder and kept beside the list), or the path or
name of a tiny autoencoder. Pictures are encoded by the model's own autoencoder whatever decodes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from unnoise.autoencoders.linear import Fit, LinearAutoencoder, LinearConfig, fit
from unnoise.core.autoencoder import Autoencoder
from unnoise.engine.model import Model
from unnoise.errors import UnnoiseError
from unnoise.files import explain, write_whole
from unnoise.notes import say
from unnoise.weights.config import to_json
from unnoise.weights.fitting import Part, fitted, locate
from unnoise.weights.parts import build
from unnoise.weights.quick import quick_hash
from unnoise.weights.sources import of_file, open_source

OWN, TINY, LINEAR = "own", "tiny", "linear"
FOLDER, RULES = "linear", "1"  # of kept maps, in the user's folder; the rules that they were fitted by
SAMPLE = 4096  # numbers of each weight that tell autoencoders apart
DEAR = 5e10  # weights of an autoencoder times cells of a latent: some seconds on a processor


class Chosen(NamedTuple):
    """A decoder that was chosen.

    Attributes:
        decoder: it.
        about: its entry in a picture's record: its kind, its name and a hash.
        words: what it is, for people.
    """

    decoder: Autoencoder
    about: dict[str, str]
    words: str


def with_decoder(model: Model, choice: str, download: bool = False) -> Model:
    """The model with pictures and previews decoded by what was chosen; a line on the standard error names it.

    Args:
        model: it.
        choice: see above; a name may also be one on a hub.
        download: whether a tiny autoencoder that is only on the hub may be fetched.

    Raises:
        UnnoiseError: there is no such decoder, or it decodes other latents than the model's.
    """
    from unnoise.weights.lookup import resolve  # large tables, which most drawing does without
    from unnoise.weights.roles import TINY as KIND

    if choice == OWN:
        return model.with_part("preview", model.decoder)
    if choice in (TINY, LINEAR):
        chosen = cheap(model, choice)
    else:
        chosen = tiny(model, resolve(choice, download, KIND))
    whole = model.with_part("decoder", chosen.decoder, decoder=chosen.about)
    say(f"pictures are decoded by {chosen.words}")
    return whole


def with_preview(model: Model, size: tuple[int, int]) -> Model:
    """The model with a cheap decoder for previews, if it is a published one, whose own is slow where it computes.

    Args:
        model: it; if a decoder was chosen for it, it stays as it is.
        size: (width, height) of the pictures.
    """
    if {"decoder", "preview"} & model.parts.keys() or "family" not in model.record or not is_dear(model, size):
        return model
    chosen = cheap(model, TINY)
    say(f"frames on the way are decoded by {chosen.words}; --decoder own turns that off, and takes longer")
    return model.with_part("preview", chosen.decoder)


def is_dear(model: Model, size: tuple[int, int]) -> bool:
    """Whether the model's own decoder takes seconds for a picture; on a GPU none does."""
    weights = sum(each.numel() for each in model.autoencoder.parameters())
    _, *cells = model.space.shape(size)
    on_processor = all(each.device.type == "cpu" for each in model.autoencoder.parameters())
    return on_processor and weights * cells[0] * cells[1] > DEAR


def cheap(model: Model, choice: str = TINY) -> Chosen:
    """A tiny autoencoder from the list of models if one is wanted and there, else the linear map.

    Raises:
        UnnoiseError: the own decoder is as cheap, or the autoencoder makes numbers that are not finite.
    """
    from unnoise.weights.lookup import parts_for

    if model.autoencoder.exact:
        raise UnnoiseError("the model draws pixels, which no decoder is cheaper for", f"use --decoder {OWN}")
    family = model.record.get("family", "")
    for path in parts_for(family, "decoder") if choice == TINY and family else ():
        try:
            chosen = tiny(model, path)
            model.with_part("decoder", chosen.decoder)
        except UnnoiseError as error:
            say(f"note: {error.what}")
        else:
            return chosen
    chosen = linear(model)
    missing = "" if choice == LINEAR else f", since the list of models has no tiny autoencoder for {family or 'it'}"
    return chosen._replace(words=chosen.words + missing)


def open_tiny(path: Path) -> Part:
    """The tiny autoencoder in a file or folder, with its decoder, from headers alone.

    Raises:
        UnnoiseError: there is none, or it is damaged.
    """
    from unnoise.weights.families.parts import tiny as piece

    source = open_source(path)
    located = locate(source, piece())
    if located is None:
        what = f"{path} has no tiny decoder: it is {source.what}"
        raise UnnoiseError(what, "name TAESD's decoder for the model's family, or one of its kin")
    return fitted("decoder", piece(), source, *located, folder=False)


def tiny(model: Model, path: Path) -> Chosen:
    """The tiny autoencoder of a file or folder, where the model's own is, in its precision.

    Raises:
        UnnoiseError: it is none, or damaged.
    """
    from unnoise.weights.entry import together

    part = open_tiny(path)
    entry = {"kind": part.piece.kind, "name": part.piece.name, "config": to_json(part.config)}
    module = build("decoder", entry, len(part.rows))
    module.load_state_dict({name: tensor.clone() for name, tensor in part.tensors()}, assign=True)
    digest = together([quick_hash(file) for file in part.source.files])
    about = {"kind": TINY, "name": path.stem if path.is_file() else path.name, "hash": digest}
    return Chosen(_placed(module, model), about, f"{path.name}, a tiny autoencoder")


def linear(model: Model) -> Chosen:
    """The linear map for the model's own decoder: kept from an earlier time, or fitted now and kept.

    Raises:
        UnnoiseError: the autoencoder makes numbers that are not finite.
    """
    result = fitted_once(model.autoencoder)
    about = {"kind": LINEAR, "name": LINEAR, "hash": fingerprint(result.decoder)}
    words = f"a linear map of the own decoder ({result.psnr:.1f} dB, {result.explained:.0%} of its variance)"
    return Chosen(_placed(result.decoder, model), about, words)


def _placed(module: nn.Module, model: Model) -> Any:
    weights = next(model.autoencoder.parameters(), torch.zeros(()))
    return module.to(device=weights.device, dtype=weights.dtype).eval().requires_grad_(False)


def fitted_once(autoencoder: Autoencoder) -> Fit:
    """The linear map for an autoencoder, from the user's folder if it is there.

    Raises:
        UnnoiseError: the autoencoder makes numbers that are not finite.
    """
    from unnoise.weights.index import home

    path = home() / FOLDER / f"{fingerprint(autoencoder)[:32]}.safetensors"
    config = LinearConfig(autoencoder.space.channels, autoencoder.space.strides[0])
    if (kept := read_fit(path, config)) is not None:
        return kept
    say("fitting a linear map to the decoder, once for each autoencoder")
    result = fit(autoencoder)
    try:
        keep_fit(path, result)
    except UnnoiseError as error:
        say(f"note: {error.what}: the map is fitted again next time")
    return result


def keep_fit(path: Path, found: Fit) -> None:
    """Writes a map to the user's folder.

    Raises:
        UnnoiseError: that cannot be written.
    """
    from safetensors.torch import save

    about = {"rules": RULES, "psnr": str(found.psnr), "explained": str(found.explained)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, path.parent) from None
    write_whole(path, save({name: each.contiguous() for name, each in found.decoder.state_dict().items()}, about))


def read_fit(path: Path, config: LinearConfig) -> Fit | None:
    """A map that was kept; None where it is not there, of other rules, or damaged."""
    if not path.is_file():
        return None
    decoder = LinearAutoencoder(config).eval().requires_grad_(False)
    try:
        source = of_file(path)
        state = {name: tensor.clone() for name, tensor in source.tensors(source.places)}
        decoder.load_state_dict(state)
        psnr, explained = float(source.metadata["psnr"]), float(source.metadata["explained"])
        sound = source.metadata["rules"] == RULES and all(torch.isfinite(each).all() for each in state.values())
    except (UnnoiseError, LookupError, RuntimeError, ValueError):
        return None
    return Fit(decoder, psnr, explained) if sound else None


def fingerprint(module: nn.Module) -> str:
    """A hash (64 hex digits) of names, shapes and evenly spread numbers of all weights, in any file or precision that
    keeps these numbers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        numbers = tensor.detach().flatten()
        numbers = numbers[:: max(1, numbers.numel() // SAMPLE)].float().cpu()
        digest.update(f"{name} {tuple(tensor.shape)} ".encode() + numbers.numpy().tobytes())
    return digest.hexdigest()


def recorded(about: object) -> str | None:
    """The choice that a picture's record stands for: "linear", the path of a listed file, or None where it says
    nothing, or of a file that is not listed."""
    from unnoise.weights.index import read_index
    from unnoise.weights.roles import TINY as KIND

    if not isinstance(about, Mapping):
        return None
    if about.get("kind") == LINEAR:
        return LINEAR
    entries = [each for each in read_index().entries.values() if each.kind == KIND and each.quick]
    return next((each.path for each in entries if each.quick == about.get("hash")), None)


def difference(then: object, now: object) -> str | None:
    """How what decodes differs from what a picture's record says of it, in a line; None where it does not."""
    if then == now:
        return None
    names = [_name(each) for each in (now, then)]
    if isinstance(then, Mapping) and then.get("kind") == TINY:
        return f"decoded by {names[0]}, it was by {names[1]}; name that with --decoder"
    rounded = names[0] == names[1] == LINEAR
    return f"decoded by {names[0]}, it was by {'one of other numbers' if rounded else names[1]}"


def _name(about: object) -> str:
    return str(about.get("name"))[:40] if isinstance(about, Mapping) else "the model's own decoder"
