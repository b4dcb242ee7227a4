"""Published models that are trained further: which can be, how much memory that needs, and what it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.data.store import PictureSet
from unnoise.engine.foreign import Choices, load_foreign
from unnoise.engine.load import load_own
from unnoise.engine.model import Model, is_tower
from unnoise.errors import UnnoiseError
from unnoise.networks.sd_unet_config import NUMBER
from unnoise.recipes.begin import Beginning, history
from unnoise.training import memory
from unnoise.training.memory import Need, gigabytes
from unnoise.training.settings import TrainSettings
from unnoise.weights.families.family import families
from unnoise.weights.opening import Opened, is_foreign, open_model
from unnoise.weights.parts import build
from unnoise.weights.record import MODEL, read_record
from unnoise.weights.shapes import FLOATS

# AdamW and a low rate, as such models are trained further everywhere; each sample by itself, and no averages, so that
# memory holds the weights four times and not seven; a preview draws sixteen pictures, which takes long
PUBLISHED_TRAIN = TrainSettings(
    samples=3200, batch=8, micro_batch=1, rate=1e-5, matrix_rate=0.0, warmup=400, averages=(), checkpoint_every=800,
    preview_every=0, watch_every=800, keep=1,
)  # fmt: skip
KEPT = ("family", "layout")  # of a model's record, in that of the new one


def is_published(path: Path) -> bool:
    """Whether a path is a model of other tools, or a folder of ours that was made of one."""
    return is_foreign(path) or ((path / MODEL).is_file() and "family" in read_record(path))


def begin_published(
    path: Path, pictures: PictureSet, train: TrainSettings, budget: float | None, prediction: str | None = None
) -> tuple[Beginning, list[str]]:
    """(what the training starts from, what a person should know before).

    Args:
        path: the file or folder.
        pictures: that it is trained on.
        train: the settings.
        budget: 10^9 bytes of memory that it may take; None for what is free.
        prediction: of a file that does not tell it.

    Raises:
        UnnoiseError: it is no model that is trained further, or memory will not do; nothing large was loaded before.
    """
    opened = opened_whole(path, prediction) if is_foreign(path) else None
    if opened is None and prediction is not None:
        raise UnnoiseError(f"{path} is a model of unnoise, which knows its prediction", "leave out --prediction")
    record: Mapping[str, Any] = read_record(path) if opened is None else opened.record
    title = families()[record["family"]].title
    modules = {name: build(name, entry) for name, entry in record["parts"].items()}
    need = needed(modules, record, pictures, train)
    check(path, modules, title if opened is None else opened.record["name"], need)
    what = f"training {title} further at {pictures.side} x {pictures.side}"
    memory.check(need, what, budget)
    place = (path, torch.device("cpu"), torch.float32)
    model = load_own(*place) if opened is None else load_foreign(*place, Choices(prediction=prediction))
    notes = [f"{what} needs about {gigabytes(need.peak)} GB of memory: {need}"]
    own = record["defaults"].get("size", [pictures.side])[0]
    if own != pictures.side:
        notes.append(
            f"the model was trained at {own} x {own}; the new one will draw at {pictures.side} x {pictures.side}"
        )
    return beginning(model, pictures.side, precisions(record, opened)), notes


def opened_whole(path: Path, prediction: str | None) -> Opened:
    """A model of other tools, opened; parts that it lacks come from the list of models.

    Raises:
        UnnoiseError: it cannot be opened, or lacks a part.
    """
    from unnoise.weights.lookup import parts_for  # large tables, which models of ours do without

    try:
        return open_model(path, prediction=prediction, find=parts_for)
    except UnnoiseError as error:
        if "--part" not in error.hint:
            raise
        hint = "name a model that has all its parts, or add them: `unnoise models add`"
        raise UnnoiseError(error.what, hint) from None


def needed(
    modules: Mapping[str, nn.Module], record: Mapping[str, Any], pictures: PictureSet, train: TrainSettings
) -> Need:
    """The memory that a training of the denoiser needs, by shapes alone.

    Args:
        modules: all parts, on the meta device.
        record: the model's.
        pictures: that it is trained on.
        train: the settings.
    """
    denoiser, autoencoder = modules["denoiser"], modules["autoencoder"]
    network: Any = denoiser.network
    config, numbers = network.config, len(record["layout"].get("numbers", ()))
    rows, towers = train.micro_batch or train.batch, [name for name in modules if is_tower(name)]
    with torch.device("meta"):
        cells = autoencoder.space.shape(pictures.side)[1:]  # type: ignore[operator]
        x = torch.zeros(rows, config.channels_out, *cells)
        beside = config.channels_in - config.channels_out
        cond = Condition(
            tokens=torch.zeros(rows, max(int(modules[name].config.length) for name in towers), config.text_width),  # type: ignore[arg-type,union-attr]
            pooled=torch.zeros(rows, config.added_width - NUMBER * numbers) if config.added_width else None,
            numbers=torch.zeros(rows, numbers),
            scale=torch.zeros(rows),
            concat=torch.zeros(rows, beside, *cells) if beside else None,
        )

    def call() -> Tensor:
        output: Tensor = network.train()(x, torch.zeros(rows, device="meta"), cond)[0]
        return output

    fixed = [module for name, module in modules.items() if name != "denoiser"]
    return memory.needed(network, fixed, train, memory.kept(network, call))


def check(path: Path, modules: Mapping[str, nn.Module], title: str, need: Need) -> None:
    """Ensures that a model is of a kind that is trained further.

    Raises:
        UnnoiseError: it is not.
    """
    denoiser: Any = modules["denoiser"]
    config = denoiser.network.config
    if config.added_width or sum(map(is_tower, modules)) != 1:
        raise UnnoiseError(
            f"{path} is {title}, which is not trained further here: it would need about {gigabytes(need.peak)} GB of "
            f"memory ({need})",
            "name a model of Stable Diffusion 1 or 2",
        )
    if config.channels_in != config.channels_out:
        what = f"{path} is {title}, which reads a mask and a masked picture: a picture set has none"
        raise UnnoiseError(what, "name a model that draws from prompts alone")
    if config.guidance_width:
        what = f"{path} is {title}: trained further as others are, it would forget to draw in a few steps"
        raise UnnoiseError(what, "name the model that it was distilled from")


def precisions(record: Mapping[str, Any], opened: Opened | None) -> dict[str, torch.dtype]:
    """{part: the precision of its files}, which the new model has too; float32 where files have several."""
    if opened is None:
        return {name: getattr(torch, entry["dtype"]) for name, entry in record["parts"].items()}
    names = {short: name for name, short in FLOATS.items()}
    kinds = {
        name: {names[part.source.places[part.names[row.theirs]].dtype] for row in part.rows}
        for name, part in opened.parts.items()
    }
    return {name: getattr(torch, next(iter(each)) if len(each) == 1 else "float32") for name, each in kinds.items()}


def beginning(model: Model, side: int, precision: Mapping[str, torch.dtype]) -> Beginning:
    """What a training of a model's denoiser on pictures of that side starts from.

    All weights are copied into memory of their own, so that the file is not mapped any more.
    """
    denoiser: Denoiser = model.denoiser
    network: Any = denoiser.network
    network.config = replace(network.config, size=model.space.shape(side)[-1])
    with torch.no_grad():
        for weight in (each for part in model.parts.values() for each in part.parameters()):
            weight.data = weight.data.clone()
    (tower,) = model.conditioner.towers
    record = {name: model.record[name] for name in KEPT} | {"defaults": {**model.defaults, "size": [side, side]}}
    trained = {name: history(model.record, name) for name in model.parts}
    return Beginning(model.parts, model.tower.tokenizer, trained, tower, record, precision)
