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
from unnoise.recipes.published import PUBLISHED_TRAIN, begin_published, is_published
from unnoise.recipes.terms import Terms
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings
from unnoise.weights.parts import build
from unnoise.weights.record import read_record

NONE = Path("none")
WORDS = ("none", "default")  # that `--init` takes in place of a path
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
    prediction: Literal["noise", "v"] | None = None,
    memory: float | None = None,
) -> Training:
    """A model of your own pictures: the default model or a published one trained further on them, or one from scratch.

    Pictures without any captions make a model without prompts. The rates are the same for all sizes: what Muon changes
    in a matrix has the same spectral norm whatever the matrix's shape.

    Args:
        data: the picture set, from `unnoise data folder`.
        train: length and rates.
        init: a model folder whose denoiser and text tower the training starts from, default, or none for from scratch;
            or a published model of Stable Diffusion 1 or 2, a file or a folder, whose U-Net alone is trained.
        size: of a network from scratch, everything in it following; own is that of init, and small from scratch.
        autoencoder, text: from scratch, model folders to take these from; by default those of the default model.
        text_rate: factor on the learning rates for the text tower; 0 keeps it fixed and caches its output.
        drop: part of the samples whose prompt is dropped.
        prediction: of a published model, what its denoiser predicts, where its file does not say.
        memory: of a published model, 10^9 bytes that the training may take; by default what is free.
    """
    pictures = open_set(data)
    items = trained(pictures, "denoiser")
    speechless = not any(caption for i in items for caption in pictures.captions[i])
    further = model_folder(init) if init != NONE or NONE.exists() else None
    begun, notes, text_rate = None, list[str](), 0.0 if speechless else text_rate
    start: Denoiser
    if further is not None and is_published(further):
        if size != "own" or text is not None or autoencoder is not None:
            raise UnnoiseError("a published model keeps its size and its parts", "leave out --size and the like")
        begun, notes = begin_published(further, pictures, train, memory, prediction)
        start, text_rate = begun.parts["denoiser"], 0.0  # type: ignore[assignment]
        defaults = begun.record["defaults"]
    elif prediction is not None or memory is not None:
        raise UnnoiseError("--prediction and --memory are for published models", "leave them out, or name one: --init")
    elif further is not None:
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
        text_rate=text_rate,
        drop=drop,
        settings={"size": size},
        defaults={**defaults, "cfg_scale": 1.0} if speechless and begun is None else defaults,
        prompts=(),
        beginning=begun,
    )
    notes += training.notes
    if speechless and begun is None:
        notes.append("no picture has a caption: the model takes no prompt, and draws with an empty one")
    elif speechless:
        notes.append("no picture has a caption: all are trained with the empty prompt")
    if training.kept_back is None:
        notes.append("no picture is kept back, so that nothing tells whether it learns or copies; see --keep-back")
    return replace(training, notes=notes)


def suited(init: str) -> dict[str, Any]:
    """The defaults that are others with that ``init``: a published model wants other settings than our own."""
    folder = model_folder(Path(init))
    return {"train": PUBLISHED_TRAIN} if init not in WORDS and is_published(folder) else {}


folder.suited = ("init", suited)  # type: ignore[attr-defined]


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
