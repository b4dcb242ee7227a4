from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from unnoise.core.denoiser import Denoiser
from unnoise.core.registry import register
from unnoise.data.feeds import trained
from unnoise.data.folder import SIZE
from unnoise.data.store import open_set
from unnoise.engine.load import default_model, model_folder
from unnoise.errors import UnnoiseError
from unnoise.networks.unet import UNet, UNetConfig
from unnoise.objectives.times import LogitNormal
from unnoise.objectives.times import Uniform as UniformTimes
from unnoise.objectives.weightings import Uniform, VelocityWeight
from unnoise.paths.flow import Flow
from unnoise.predictions.flow import FlowVelocity
from unnoise.recipes.flow import FLOW_DEFAULTS
from unnoise.recipes.latent import latent_training
from unnoise.recipes.terms import Terms
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings
from unnoise.weights.parts import build
from unnoise.weights.record import read_record

NONE = Path("none")
SCALES = {"tiny": (1, 1, 2), "small": (2, 2, 4), "medium": (4, 2, 6), "large": (6, 3, 8)}  # scale, blocks, depth
FLOW_TIMES = LogitNormal(0.7, 1.2)  # as emoji-flow has them, and why


@register("folder")
def folder(
    data: Path = Path("data/photos"),
    train: TrainSettings = TrainSettings(
        samples=6400, batch=16, warmup=400, cooldown=0.6, checkpoint_every=800, preview_every=1600, watch_every=800
    ),
    init: Path = Path("default"),
    size: Literal["own", "tiny", "small", "medium", "large"] = "own",
    autoencoder: Path | None = None,
    text: Path | None = None,
    text_rate: float = 0.2,
    drop: float = 0.1,
) -> Training:
    """A model of your own pictures: the default model trained further on them, or one from scratch.

    Pictures without any captions make a model without prompts. The rates are the same for all sizes: what Muon changes
    in a matrix has the same spectral norm whatever the matrix's shape.

    Args:
        data: the picture set, from `unnoise data folder`.
        train: length and rates.
        init: a model folder whose denoiser and text tower the training starts from, default, or none for from scratch.
        size: of a network from scratch, everything in it following; own is that of init, and small from scratch.
        autoencoder, text: from scratch, model folders to take these from; by default those of the default model.
        text_rate: factor on the learning rates for the text tower; 0 keeps it fixed and caches its output.
        drop: part of the samples whose prompt is dropped.
    """
    pictures = open_set(data)
    items = trained(pictures, "denoiser")
    speechless = not any(caption for i in items for caption in pictures.captions[i])
    further = model_folder(init) if init != NONE or NONE.exists() else None
    if further is not None:
        start, defaults = beginning(further, size)
    else:
        start, defaults = fresh(size, autoencoder, None if speechless else text or default_model()), FLOW_DEFAULTS
    training = latent_training(
        recipe="folder",
        pictures=pictures,
        train=train,
        network=start.network.name,  # type: ignore[arg-type]
        shape=start.network.config,
        path=start.path,
        prediction=start.prediction,
        noise_label=start.noise_label,
        times=FLOW_TIMES if isinstance(start.path, Flow) else UniformTimes(),
        weighting=VelocityWeight() if isinstance(start.path, Flow) else Uniform(),
        terms=Terms(),
        autoencoder=autoencoder,
        text=text,
        init=further,
        text_rate=0.0 if speechless else text_rate,
        drop=drop,
        settings={"size": size},
        defaults={**defaults, "cfg_scale": 1.0} if speechless else defaults,
        prompts=(),
    )
    notes = list(training.notes)
    if speechless:
        notes.append("no picture has a caption: the model takes no prompt, and draws with an empty one")
    if training.kept_back is None:
        notes.append("no picture is kept back, so that nothing tells whether it learns or copies; see --keep-back")
    return replace(training, notes=notes)


def beginning(folder: Path, size: str) -> tuple[Denoiser, Mapping[str, Any]]:
    """(the denoiser that a training goes on with, without weights, how the model draws).

    Raises:
        UnnoiseError: there is none, or another size is asked for.
    """
    if size != "own":
        raise UnnoiseError(f"a model that is trained further keeps its size, and is not made {size}", "add --init none")
    record = read_record(folder)
    if "denoiser" not in record["parts"]:
        raise UnnoiseError(f"the model at {folder} has no denoiser", "name a whole model with --init, or none")
    start = build("denoiser", record["parts"]["denoiser"])
    assert isinstance(start, Denoiser)
    return start, record.get("defaults", FLOW_DEFAULTS)


def fresh(size: str, autoencoder: Path | None, text: Path | None) -> Denoiser:
    """A flow denoiser without weights, as large as the dial sets, for these latents and these prompts (or none).

    Raises:
        UnnoiseError: there is no such model, or it lacks that part.
    """
    scale, blocks, depth = SCALES["small" if size == "own" else size]
    cells = _part(autoencoder or default_model(), "autoencoder").space.shape(SIZE)
    width = _part(text, "text").config.width if text is not None else 0
    config = UNetConfig(
        channels_in=cells[0],
        size=cells[-1],
        channels=32 * scale,
        blocks=blocks,
        width=64 * scale,
        depth=depth,
        heads=scale,
        text_width=width,
        embedding=64 * scale,
    )
    return Denoiser(UNet(config), Flow(), FlowVelocity(), "time")


def _part(path: Path, part: str) -> Any:
    """A component of a model folder, without weights."""
    folder = model_folder(path)
    parts = read_record(folder)["parts"]
    if part not in parts:
        raise UnnoiseError(f"the model at {folder} has no {part}", "name another folder")
    return build(part, parts[part])
