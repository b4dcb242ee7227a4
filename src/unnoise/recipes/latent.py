"""What the recipes for latent denoisers share: features from given encoders, the objective, previews."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unnoise.core.autoencoder import Autoencoder
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.path import Path as NoisePath
from unnoise.core.prediction import Prediction
from unnoise.core.registry import find
from unnoise.data.cache import content_sha256, feature_key, load_or_compute
from unnoise.data.feeds import CaptionIds, Encoded, LatentFeed, trained
from unnoise.data.folder import SIZE
from unnoise.data.store import PictureSet
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.engine.engine import Engine
from unnoise.engine.foreign import tokenizer_file
from unnoise.engine.load import default_model, layout_of, model_folder
from unnoise.engine.model import Model
from unnoise.engine.words import WORDS, vocabulary
from unnoise.errors import UnnoiseError
from unnoise.objectives.denoising import DenoisingObjective
from unnoise.objectives.times import TimeSampler
from unnoise.objectives.weightings import Weighting
from unnoise.pictures import from_bytes
from unnoise.recipes.begin import Beginning, starting_parts, warm_start
from unnoise.recipes.terms import Terms, WithOthers, lasting
from unnoise.recipes.watched import at_once, copies, kept_back, kept_items, prompts_of, strange_to, taught_words
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings

PREVIEW_PROMPTS = (
    "red apple",
    "blue heart",
    "pizza",
    "rocket",
    "guitar",
    "cat face",
    "flag of Norway",
    "grinning face",
    "woman firefighter, dark skin tone",
    "man astronaut, light skin tone",
    "house with garden",
    "soccer ball",
    "sunflower",
    "clock",
    "dog",
    "thumbs up, medium skin tone",
)


def weights_sha256(module: nn.Module) -> str:
    """What identifies a component: the SHA-256 (hex) of what it is and of its weights, wherever they are kept."""
    what = json.dumps(lasting(module), sort_keys=True)
    return hashlib.sha256(f"{what} {content_sha256(module.state_dict())}".encode()).hexdigest()


@torch.no_grad()
def encode_pictures(autoencoder: Autoencoder, pictures: PictureSet) -> dict[str, Any]:
    """{"mean", "std"}: (N, C, h, w) latents of all pictures, from the cache where the same encoder filled it before.

    Of an autoencoder that only rearranges numbers the mean is ``Encoded``, the std None, and nothing is kept.
    """
    if autoencoder.exact:
        where = next(autoencoder.parameters())
        return {"mean": Encoded(pictures.pictures(), lambda x: autoencoder.encode(x.to(where)).mean), "std": None}

    def compute() -> dict[str, Tensor]:
        parts = []
        for rows in torch.split(pictures.pictures(), at_once(pictures.side)):
            x = from_bytes(rows).contiguous(memory_format=torch.channels_last)
            parts.append(autoencoder.encode(x))
        return {"mean": torch.cat([p.mean.cpu() for p in parts]), "std": torch.cat([p.std.cpu() for p in parts])}

    transform = {"scale": "[-1, 1]", "what": "latents"}
    key = feature_key(pictures.pictures_sha256, transform, weights_sha256(autoencoder))
    return load_or_compute(pictures.path / "cache", key, compute)


@torch.no_grad()
def encode_captions(text: nn.Module, pictures: PictureSet, items: list[int], tokenizer: Tokenizer) -> Condition:
    """The condition of every caption of the items, the empty prompt's last; from the cache where it was filled."""

    def compute() -> dict[str, Tensor]:
        ids = CaptionIds([pictures.captions[i] for i in items], tokenizer).unique
        parts = [text(rows) for rows in torch.split(torch.cat([ids, tokenizer([""])]), 256)]
        whole = Condition.cat(parts)
        made = {"tokens": whole.tokens, "token_mask": whole.token_mask, "pooled": whole.pooled}
        return {name: tensor for name, tensor in made.items() if tensor is not None}

    which = hashlib.sha256(repr(items).encode()).hexdigest()
    transform = {"items": which, "what": "captions", "tokenizer": tokenizer.json}
    key = feature_key(pictures.sha256, transform, weights_sha256(text))
    return Condition(**load_or_compute(pictures.path / "cache", key, compute))


def latent_training(
    *,
    recipe: str,
    pictures: PictureSet,
    train: TrainSettings,
    network: str,
    shape: Any,
    path: NoisePath,
    prediction: Prediction,
    noise_label: str,
    times: TimeSampler,
    weighting: Weighting,
    autoencoder: Path | Callable[[Tensor], Autoencoder] | None,
    text: Path | None,
    init: Path | None,
    text_rate: float,
    drop: float,
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any],
    terms: Terms = Terms(),
    prompts: Sequence[str] = PREVIEW_PROMPTS,
    beginning: Beginning | None = None,
) -> Training:
    """A training of a denoiser on latents, by whichever recipe; see the recipes for what each argument means.

    Args:
        network, shape: its name in the registry, and its config.
        autoencoder: a model folder, or what makes one of the uint8 pictures (N, 3, H, W) that are trained on.
        beginning: the parts themselves, which fit the pictures; their denoiser is what is trained.
    """
    items = trained(pictures, "denoiser")
    options = terms.options(shape)
    if beginning is None:
        check_size(pictures)
        begun = starting_parts(autoencoder, text, init, partial(pictures.pictures, items))
        torch.manual_seed(train.seed)
        built = find("networks", network)(shape).to(memory_format=torch.channels_last)
        denoiser = Denoiser(built, path, prediction, noise_label)
        if init is not None:
            warm_start(denoiser, begun.parts["denoiser"])
    else:
        begun, denoiser = beginning, beginning.parts["denoiser"]  # type: ignore[assignment]
    parts, tokenizer, name = begun.parts, begun.tokenizer, begun.tower
    denoiser.requires_grad_(True)
    tower = parts[name].requires_grad_(text_rate > 0)
    learnt = tower if text_rate > 0 else None
    objective = DenoisingObjective(denoiser, times, weighting, learnt, text_rate, drop, **options)
    # the first that takes long: all else was refused before
    latents = encode_pictures(parts["autoencoder"], pictures)  # type: ignore[arg-type]
    if beginning is None:
        fits(shape, latents["mean"].shape, tower.config.width)  # type: ignore[arg-type,union-attr]
    identity = {
        "recipe": recipe,
        "network": shape,
        "text_rate": text_rate,
        "drop": drop,
        **settings,
        **terms.identity(),
    }
    identity["given"] = {each: weights_sha256(part) for each, part in parts.items()}
    identity["tokenizer"] = hashlib.sha256(tokenizer.json.encode()).hexdigest()

    def feed(rows: list[int]) -> LatentFeed | WithOthers:
        features = None if text_rate > 0 else encode_captions(tower, pictures, rows, tokenizer)
        plain = LatentFeed(pictures, rows, tokenizer, latents["mean"], latents["std"], features)
        return WithOthers(plain) if terms.contrast else plain

    def finish(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        done = Denoiser(modules["denoiser"], path, prediction, noise_label).eval()
        return {"autoencoder": parts["autoencoder"], name: modules.get("text", tower), "denoiser": done}

    font = pictures.manifest.get("origin", {}).get("font", {})
    now = {"recipe": recipe, **train.length(), "batch": train.batch, "font": font}
    before = begun.trained
    histories = {**before, "denoiser": [*before["denoiser"], now]}
    info = {**begun.record, "name": recipe, "trained": histories, "defaults": dict(defaults)}
    captions, files, words = [pictures.captions[i] for i in items], {tokenizer_file(name): tokenizer.json}, None
    if beginning is None:  # a published model knows more words than anybody could list
        words = taught_words(model_folder(text or init or default_model()))
        files[WORDS] = vocabulary([*(words or () if init else ()), *(caption for each in captions for caption in each)])
    kept = kept_items(pictures)
    texts = [*prompts, *prompts_of(pictures, kept, tokenizer)]
    return Training(
        objective,
        feed(items),
        train,
        identity,
        finish,
        previewer({name: tokenizer}, info, texts or prompts_of(pictures, items, tokenizer)),
        info,
        texts=files,
        precision=begun.precision,
        kept_back=kept_back(objective, kept, items, feed),
        copied=copies(pictures, kept, items, parts["autoencoder"]),  # type: ignore[arg-type]
        notes=strange_to(words, captions),
    )


def check_size(pictures: PictureSet) -> None:
    """Ensures that pictures are as large as what its models draw.

    Raises:
        UnnoiseError: they are not.
    """
    side = pictures.side
    if side != SIZE:
        raise UnnoiseError(
            f"the pictures at {pictures.path} are {side} x {side}, models draw {SIZE} x {SIZE}",
            f"import them with `unnoise data folder` and --size {SIZE}",
        )


def fits(network: Any, latents: Sequence[int], text_width: int) -> None:
    """Ensures that a network's config has the shape of what it is trained on: latents (N, C, h, w), and a text width.

    Raises:
        UnnoiseError: it has not.
    """
    sizes = {"channels_in": latents[1], "size": latents[-1], "text_width": text_width}
    for name, value in sizes.items():
        if getattr(network, name) != value and (name, network.text_width) != ("text_width", 0):
            raise UnnoiseError(
                f"the network's {name} is {getattr(network, name)}, its data have {value}", f"set {name} to {value}"
            )


def previewer(
    tokenizers: Mapping[str, Tokenizer], info: Mapping[str, Any], prompts: Sequence[str]
) -> Callable[[Mapping[str, nn.Module]], Tensor]:
    """Draws prompts by the inference engine itself, each with seed 1; one that stands again, with the next."""
    seeds = [1 + prompts[:place].count(prompt) for place, prompt in enumerate(prompts)]

    def preview(parts: Mapping[str, nn.Module]) -> Tensor:
        device = next(parts["denoiser"].parameters()).device
        parts = {name: part.to(device) for name, part in parts.items()}
        engine = Engine(Model(parts, tokenizers, info, layout=layout_of(info)))
        return engine.pixels(
            [engine.request(prompt, seed=seed, steps=20) for prompt, seed in zip(prompts, seeds, strict=True)]
        )

    return preview
