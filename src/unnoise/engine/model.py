"""A model: parts under free names, and what they can do together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from unnoise.core import checks
from unnoise.core.autoencoder import Autoencoder
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.evaluate import network_called
from unnoise.core.guidance import OWN, Guidance
from unnoise.core.sample import all_finite
from unnoise.core.space import Space
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.engine.conditioner import Conditioner, Layout, Tower
from unnoise.engine.request import RULES, Request
from unnoise.engine.settings import size_of
from unnoise.engine.start import Start
from unnoise.engine.words import warning
from unnoise.errors import UnnoiseError
from unnoise.guidances.embedded import Embedded
from unnoise.kernels.forked import check_threads
from unnoise.pictures import to_bytes, to_images

TEXT = "text"  # a tower's part is called so, or text.clip-l and the like


def is_tower(part: str) -> bool:
    """Whether a part of that name is a text tower."""
    return part == TEXT or part.startswith(f"{TEXT}.")


class Model:
    """The networks that make pictures together, in evaluation mode. Nothing in it changes while it draws.

    Args:
        parts: by name: "autoencoder", "denoiser", text towers "text" or "text.NAME", and further denoisers such as
            "weak", which guidances may ask for; "decoder", which decodes pictures in place of the autoencoder, and
            "preview", which decodes what is not finished. Each has a device and a precision of its own.
        tokenizers: by the names of the text towers.
        record: the model's record; ``record["defaults"]`` holds default settings of a ``Request``.
        taught: the words of the captions that it was trained on; None where they are unknown.
        layout: how the vectors of several towers are joined.

    Attributes:
        denoisers: all calibrated networks by name, the model's own among them.
        decoder, preview: what decodes finished pictures, and estimates on the way to them.
        conditioner: from prompts to a condition.

    Raises:
        UnnoiseError: a part is missing or no such thing, or the defaults cannot be drawn with.
    """

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        tokenizers: Mapping[str, Tokenizer],
        record: Mapping[str, Any] | None = None,
        taught: frozenset[str] | None = None,
        layout: Layout | None = None,
    ) -> None:
        hint = "give the part of a model; unnoise.load makes a whole one"
        self.parts = dict(parts)
        self.autoencoder: Autoencoder = checks.instance("autoencoder", parts.get("autoencoder"), Autoencoder, hint)  # type: ignore[assignment]
        self.denoiser: Denoiser = checks.instance(OWN, parts.get(OWN), Denoiser, hint)  # type: ignore[assignment]
        self.decoder = self._reader("decoder", self.autoencoder)
        self.preview = self._reader("preview", self.decoder)
        self.denoisers = {name: part for name, part in parts.items() if isinstance(part, Denoiser)}
        towers = {}
        for name in filter(is_tower, parts):
            network = checks.instance(name, parts[name], nn.Module, hint)
            tokenizer: Any = checks.called(f"tokenizer of {name}", tokenizers.get(name), hint)
            towers[name] = Tower(network, tokenizer)
        self.conditioner = Conditioner(towers, layout)
        self.record, self.taught = dict(record or {}), taught
        weights = next(self.denoiser.parameters())
        self.device, self.dtype = weights.device, weights.dtype
        self.defaults = self._defaults()

    def _reader(self, part: str, otherwise: Autoencoder) -> Autoencoder:
        """A part that decodes the autoencoder's latents.

        Raises:
            UnnoiseError: it decodes others.
        """
        hint = "give an autoencoder that reads the model's latents"
        reader: Autoencoder = checks.instance(part, self.parts.get(part, otherwise), Autoencoder, hint)  # type: ignore[assignment]
        if reader.space != self.space:
            theirs, ours = (f"{s.channels} channels, {s.stride} pixels a cell" for s in (reader.space, self.space))
            what = f"the {part} decodes other latents ({theirs}) than the model's ({ours})"
            raise UnnoiseError(what, "name one that was made for this model's latents")
        return reader

    def with_part(self, name: str, part: nn.Module, **about: Any) -> Model:
        """The same model with one more part, or with another in a part's place, and with entries of its record.

        Raises:
            UnnoiseError: the part does not fit.
        """
        tokenizers = {tower: each.tokenizer for tower, each in self.conditioner.towers.items()}
        parts, record = {**self.parts, name: part}, {**self.record, **about}
        return Model(parts, tokenizers, record, self.taught, self.conditioner.layout)

    def _defaults(self) -> dict[str, Any]:
        """The model's own settings, as they are written in its record.

        Raises:
            UnnoiseError: one is unknown, or cannot be drawn with.
        """
        defaults = self.record.get("defaults", {})
        if not isinstance(defaults, Mapping):
            raise UnnoiseError("model.json: defaults is no record of settings", "the model is damaged")
        for name in defaults:
            if name not in Request.__dataclass_fields__ or name == "prompt":
                raise UnnoiseError(f"model.json: defaults has the unknown setting {name!r}", "update unnoise")
        try:
            Request("", **defaults)
        except (UnnoiseError, TypeError) as error:
            raise UnnoiseError(
                f"model.json: defaults: {getattr(error, 'what', error)}", "the model is damaged"
            ) from None
        return dict(defaults)

    @property
    def tower(self) -> Tower:
        """The first text tower, whose tokens come first."""
        return next(iter(self.conditioner.towers.values()))

    @property
    def space(self) -> Space:
        """What a state looks like."""
        return self.autoencoder.space

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) of the pictures that it was trained on."""
        if "size" in self.defaults:
            return size_of(self.defaults["size"])
        stride = self.space.stride
        wide, high = stride if isinstance(stride, tuple) else (stride, stride)
        cells = int(getattr(getattr(self.denoiser.network, "config", None), "size", 16))
        return cells * wide, cells * high

    @property
    def reads_masks(self) -> bool:
        """Whether its denoiser is one for inpainting, which reads the mask and what stays beside the state."""
        config = getattr(self.denoiser.network, "config", None)
        return int(getattr(config, "channels_in", 0)) == 1 + 2 * int(getattr(config, "channels_out", 0)) > 1

    @torch.inference_mode()
    def grey(self, size: tuple[int, int]) -> Tensor:
        """(1, C, h, w) latents of a grey picture, of which nothing stays, where the denoiser computes."""
        weights = next(self.autoencoder.parameters())
        picture = torch.zeros(1, 3, size[1], size[0], device=weights.device, dtype=weights.dtype)
        return self.autoencoder.encode(picture).mean.float().to(self.device)

    def request(self, prompt: str, **changes: Any) -> Request:
        """A request with the model's default settings, and those changes that are not None.

        Raises:
            UnnoiseError: an unknown setting, or one that cannot be drawn with.
        """
        for name in changes:
            checks.choice("setting", name, *Request.__dataclass_fields__)
        settings = {name: value for name, value in changes.items() if value is not None}
        request = Request(prompt, **({"size": self.size} | self.defaults | settings))
        return request

    def check(self, request: Request) -> Request:
        """The request, with the model's size if it has none, after a check that the model can draw it.

        Raises:
            UnnoiseError: it cannot, and which field is why.
        """
        checks.instance("request", request, Request, "make it by model.request(prompt)")
        if request.size is None:
            request = dataclasses.replace(request, size=self.size)
        shape = self.shape(request)
        for denoiser in self.denoisers.values():
            denoiser.network.check_size(*shape[1:])  # type: ignore[operator]
        for text in (request.prompt, request.negative, request.invert or ""):
            self.conditioner.read(text, request.weights, request.rules < 2)
        if request.clip_skip is not None:
            try:
                self.conditioner.check_layer(request.clip_skip)
            except UnnoiseError as error:
                raise UnnoiseError(f"clip_skip: {error.what}", error.hint) from None
        try:
            self.denoiser.network.check_sites(read=request.read)  # type: ignore[operator]
        except UnnoiseError as error:
            raise UnnoiseError(f"read: {error.what}", error.hint) from None
        self._check_guidance(request.steer())
        return request

    def _check_guidance(self, steer: Guidance | None) -> None:
        """Ensures that the networks are there that a guidance asks, and that the model's own reads a scale or does not.

        Raises:
            UnnoiseError: one is not there, or the guidance is for other networks.
        """
        reads, embeds = bool(getattr(getattr(self.denoiser.network, "config", None), "guidance_width", 0)), False
        while steer is not None:
            network_called(self.denoisers, getattr(steer, "network", OWN))
            embeds = embeds or isinstance(steer, Embedded)
            steer = getattr(steer, "inner", None)
        if embeds and not reads:
            raise UnnoiseError("guidance embedded: the model's network takes no scale", "use cfg, which all take")
        if reads and not embeds:
            raise UnnoiseError("guidance: the model's network takes the scale itself", 'use "embedded(8.5)"')

    def remarks(self, prompts: Sequence[str], size: tuple[int, int] | None = None) -> list[str]:
        """What a person should know before such prompts are drawn at such a size, a line each."""
        lines = []
        if self.taught is not None and (note := warning(" ".join(prompts), self.taught)):
            lines.append(note)
        if size is not None and size != self.size:
            own, other = ("x".join(map(str, each)) for each in (self.size, size))
            lines.append(f"note: the model was trained at {own}; at {other} it may repeat or tear what it draws")
        return lines

    def shape(self, request: Request) -> tuple[int, ...]:
        """The shape of one row's state.

        Raises:
            UnnoiseError: the request has a size that a network does not take.
        """
        multiple = math.lcm(*(getattr(each.network, "multiple", 1) for each in self.denoisers.values()))
        size = request.size or self.size
        try:
            return self.space.shape(size, multiple)
        except UnnoiseError as error:
            raise UnnoiseError(f"size {size[0]}x{size[1]}: {error.what}", error.hint) from None

    @torch.inference_mode()
    def encode(
        self,
        prompts: Sequence[str],
        weights: bool = False,
        rules: int = RULES,
        *,
        size: tuple[int, int] | None = None,
        clip_skip: int | None = None,
        negative: bool = False,
    ) -> Condition:
        """The condition of prompts, one row each, where the model's own denoiser computes.

        Args:
            prompts: they are cleaned as captions are; rules 1 takes them as they were typed.
            weights: whether brackets weigh words.
            rules: the version of the drawing rules.
            size: (width, height) of the pictures, which some networks are told; None for the model's own.
            clip_skip: the layer of the text towers, counted from the end: 1 is the last; None for the model's own.
            negative: whether the prompts are what to steer away from; an empty one may then have vectors of its own.

        Raises:
            UnnoiseError: no list of prompts, or a prompt is longer than the model reads, or no text, or the towers have
                no such layer.
        """
        prompts = checks.several("prompts", prompts, checks.text)
        check_threads(self.device)
        size = self.size if size is None else size_of(size)
        flags = checks.flag("weights", weights), rules < 2
        cond = self.conditioner(prompts, *flags, size, clip_skip, checks.flag("negative", negative))
        return cond.to(self.device, self.dtype)

    @torch.inference_mode()
    def decode(self, z: Tensor, start: Start | None = None, preview: bool = False) -> list[Image.Image]:
        """RGB images from latents, (B, C, h, w); of a run from ``start`` with the pixels that its mask keeps.

        Args:
            z: the latents.
            start: of the run.
            preview: decode them by what previews are decoded with.

        Raises:
            UnnoiseError: they are of another shape, no floats, or not finite.
        """
        check_threads(self.device)
        cells = z.shape[2:] if isinstance(z, Tensor) and z.ndim == 4 else self.space.shape(self.size)[1:]
        checks.tensor("z", z, (self.space.channels, *cells))
        if not all_finite(z):
            raise UnnoiseError("z has numbers that are not finite", "give latents of a run, such as step.run.x")
        return to_images(to_bytes(self.pixels(z, start, self.preview if preview else None)))

    def pixels(self, z: Tensor, start: Start | None = None, decoder: Autoencoder | None = None) -> Tensor:
        """(B, 3, H, W) floats, about [-1, 1], from latents; as ``decode``, by any decoder, and nothing is checked."""
        decoder = decoder or self.decoder
        weights = next(decoder.parameters(), z)
        pictures = decoder.decode(z.to(device=weights.device, dtype=weights.dtype))
        return pictures if start is None else start.put_back(pictures)
