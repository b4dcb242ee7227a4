"""From a prompt to a picture: encode, sample, decode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from unnoise.core import checks
from unnoise.core.autoencoder import Autoencoder
from unnoise.core.condition import Condition
from unnoise.core.denoiser import Denoiser
from unnoise.core.guidance import Guidance, batched, bind
from unnoise.core.inversion import invert
from unnoise.core.noise import BrownianNoise, NoiseSource
from unnoise.core.notation import make
from unnoise.core.sample import Step, all_finite, sample
from unnoise.data.square import on_white
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.engine import emphasis, masks
from unnoise.engine.picture_step import PictureStep
from unnoise.engine.settings import RULES, Settings
from unnoise.engine.start import USUAL, Known, Start, cells, check_start, check_strength, levels_from
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG
from unnoise.kernels.forked import check_threads
from unnoise.pictures import from_bytes, from_image, to_bytes, to_images
from unnoise.text import clean
from unnoise.weights.config import from_json
from unnoise.weights.record import MODEL

SIZE = 128
BATCH = 16


def batches(count: int, strict: bool = False) -> list[range]:
    """Which of so many pictures are drawn together: at most sixteen, or each alone.

    Libraries add a batch's numbers in another order than one picture's, so that a picture's bits depend, by rounding,
    on how many are drawn beside it; drawn alone they are a function of its prompt, seed and settings.
    """
    size = 1 if strict else BATCH
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


class Pipeline:
    """Draws pictures for prompts with one set of networks. Holds nothing of any run: threads may share it.

    Args:
        denoiser, autoencoder, text: the networks, on one device and in evaluation mode.
        tokenizer: prompts to ids.
        record: the model's record; ``record["defaults"]`` holds default settings.
        taught: the words of the captions that it was trained on; None where nobody knows them.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        autoencoder: Autoencoder,
        text: torch.nn.Module,
        tokenizer: Tokenizer,
        record: Mapping[str, Any] | None = None,
        taught: frozenset[str] | None = None,
    ) -> None:
        hint = "give a part of a model; unnoise.load makes a pipeline of a whole one"
        self.denoiser = checks.instance("denoiser", denoiser, torch.nn.Module, hint)
        self.autoencoder = checks.instance("autoencoder", autoencoder, Autoencoder, hint)
        self.text = checks.instance("text", text, torch.nn.Module, hint)
        self.tokenizer = checks.called("tokenizer", tokenizer, hint)
        self.record, self.taught = dict(record or {}), taught
        self.defaults: Settings = from_json(Settings, self.record.get("defaults", {}), f"{MODEL}: defaults")
        parameter = next(denoiser.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype

    def settings(self, **changes: Any) -> Settings:
        """The model's default settings, with those changes that are not None.

        Raises:
            UnnoiseError: an unknown setting, or one that cannot be run.
        """
        for name in changes:
            checks.choice("setting", name, *Settings.__dataclass_fields__)
        values = {name: getattr(self.defaults, name) for name in Settings.__dataclass_fields__}
        return Settings(**values | {name: value for name, value in changes.items() if value is not None})

    def _checked(self, settings: Settings | None) -> Settings:
        return self.defaults if settings is None else checks.instance("settings", settings, Settings, "use settings()")

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str], weights: bool = False, rules: int = RULES) -> Condition:
        """The condition of prompts, one row each; ``weights`` and ``rules`` as in ``Settings``.

        They are cleaned as captions are; rules 1 takes them as they were typed.

        Raises:
            UnnoiseError: no list of prompts, or a prompt is longer than the model reads, or no text.
        """
        prompts = checks.several("prompts", prompts, checks.text)
        check_threads(self.device)
        if checks.flag("weights", weights):
            return emphasis.encode(self.text, self.tokenizer, prompts, self.device, typed=rules < 2)
        prompts = prompts if rules < 2 else [clean(prompt) for prompt in prompts]
        return self.text(self.tokenizer(prompts).to(self.device))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def start(
        self, picture: Image.Image, strength: float | None = None, mask: Image.Image | None = None, rules: int = RULES
    ) -> Start:
        """What a run starts from: a picture of any size and mode, turned upright, cut square and scaled to the model's.

        Args:
            picture: what is clear in it becomes white.
            strength: how much of the way to noise it is taken, 0.02 to 1; 0.6 if left out, 1 with a mask.
            mask: as large as the picture; what it selects is drawn anew, see ``masks.selection``, the rest stays.
            rules: the version of the drawing rules; by the first the autoencoder draws what stays, too.

        Raises:
            UnnoiseError: no picture, a strength out of range, or a mask that is of another size or selects nothing.
        """
        strength = check_strength((USUAL if mask is None else 1.0) if strength is None else strength)
        picture = on_white(masks.whole("picture", picture))
        mask = None if mask is None else masks.whole("mask", mask)
        if mask is not None and mask.size != picture.size:
            raise UnnoiseError(f"the mask is {mask.size}, the picture {picture.size}", "make the mask as large as it")
        check_threads(self.device)
        pixels = from_image(ImageOps.fit(picture, (SIZE, SIZE)))[None].to(self.device)
        x0 = self.autoencoder.encode(from_bytes(pixels).to(self.dtype)).mean.float()
        if mask is None:
            return Start(x0, strength)
        if rules < 2:
            return Start(x0, strength, cells(masks.old_light(mask, SIZE).to(self.device), x0.shape[-2:]))
        drawn = masks.drawn_anew(mask, SIZE).to(self.device)
        anew = cells(drawn.float(), x0.shape[-2:])
        return Start(x0, strength, anew, pixels=pixels, share=masks.feathered(drawn))

    @torch.inference_mode()
    def invert(self, start: Start, prompt: str, settings: Settings | None = None, rounds: int = 8) -> Start:
        """The same start with the state from which a plain run of Euler with the prompt would lead back to it.

        Where a noised start keeps the picture's layout alone, this keeps what the prompt does not say; drawn with other
        words, the picture changes where they do. See ``core.inversion``.
        """
        settings, rounds = self._checked(settings), checks.whole("rounds", rounds, 0, 1000)
        start, prompt = check_start(start, self.autoencoder.space.shape(SIZE)), checks.text("prompt", prompt)
        path, shape = self.denoiser.path, start.x0.shape[1:]
        levels = levels_from(make("spacings", settings.spacing), path, settings.steps, start.strength, shape)
        cond = self.encode([prompt], settings.weights, settings.rules).repeat(len(start.x0))
        denoise = bind(CFG(1.0), batched(self.denoiser), {"cond": cond})
        for state in invert(denoise, levels, start.x0.float(), rounds):
            start = start._replace(state=state)
        return start

    @torch.inference_mode()
    def decode(self, z: Tensor, start: Start | None = None) -> list[Image.Image]:
        """RGB images from latents, (B, C, h, w); of a run from ``start`` with the pixels that its mask keeps.

        Raises:
            UnnoiseError: they are of another shape, no floats, or not finite; or the start is none.
        """
        check_threads(self.device)
        checks.tensor("z", z, self.autoencoder.space.shape(SIZE))
        if start is not None:
            check_start(start, self.autoencoder.space.shape(SIZE))
        if not all_finite(z):
            raise UnnoiseError("z has numbers that are not finite", "give latents of a run, such as step.run.x")
        return to_images(to_bytes(self._floats(z, start)))

    def _floats(self, z: Tensor, start: Start | None) -> Tensor:
        drawn = self.autoencoder.decode(z.to(self.dtype))
        return drawn if start is None else start.put_back(drawn)

    def run(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        negative: str = "",
        settings: Settings | None = None,
        start: Start | None = None,
    ) -> Iterator[Step]:
        """The steps of one run over a batch: row i draws ``prompts[i]`` with ``seeds[i]``.

        Raises:
            UnnoiseError: before the first step, a prompt, a seed or a setting that cannot be drawn.
        """
        prompts, seeds = checks.several("prompts", prompts, checks.text), checks.several("seeds", seeds, checks.seed)
        if len(prompts) != len(seeds):
            raise UnnoiseError(
                f"there are {len(prompts)} prompts and {len(seeds)} seeds", "give a seed for each prompt"
            )
        settings = self._checked(settings)
        if start is not None:
            start = check_start(start, self.autoencoder.space.shape(SIZE), len(prompts))
        return self._run(prompts, seeds, checks.text("negative", negative), settings, start)

    def _run(
        self, prompts: list[str], seeds: list[int], negative: str, settings: Settings, start: Start | None
    ) -> Iterator[Step]:
        solver = settings.method()
        shape = self.autoencoder.space.shape(SIZE)
        strength = start.strength if start else 1.0
        levels = levels_from(make("spacings", settings.spacing), self.denoiser.path, settings.steps, strength, shape)
        source = BrownianNoise if settings.noise == "brownian" else NoiseSource
        noise = source(seeds, shape, torch.float32, self.device)  # whatever the networks' precision
        with torch.inference_mode():
            conds: dict[str, Condition | None] = {"cond": self.encode(prompts, settings.weights, settings.rules)}
            conds["uncond"] = self.encode([negative], settings.weights, settings.rules).repeat(len(prompts))
            steer = settings.steer()
            x = noise.initial() * levels[0].sigma
            if start is not None:
                noised = levels[0].mix(start.x0.to(x), noise.initial())
                x = noised if start.state is None else start.state.to(x).expand_as(x)
                steer = Known(steer, start.x0, start.mask) if start.mask is not None else steer
            denoise = bind(steer, batched(self.denoiser), conds)
        steps = sample(denoise, solver, levels, x, noise)
        while True:
            with torch.inference_mode():  # entered anew for each step: a generator must not hold it while it waits
                step = next(steps, None)
            if step is None:
                return
            yield step

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        negative: str = "",
        start: Start | None = None,
        **changes: Any,
    ) -> Tensor:
        """(N, 3, H, W) float pictures in about [-1, 1], one a prompt and seed; ``changes`` as in ``settings``."""
        for step in self.run(prompts, seeds, negative, self.settings(**changes), start):
            last = step.run.x
        with torch.inference_mode():
            return self._floats(last, start).float().cpu()

    def generate(
        self,
        prompt: str,
        negative: str = "",
        count: int = 1,
        seed: int = 0,
        steps: int | None = None,
        cfg_scale: float | None = None,
        solver: str | None = None,
        spacing: str | None = None,
        guidance: str | Guidance | None = None,
        weights: bool = True,
        strict: bool = False,
        start: Start | None = None,
    ) -> list[Image.Image]:
        """Pictures for a prompt; picture i is drawn with seed + i.

        Args:
            prompt: what to draw; brackets weigh words, see ``engine.emphasis``.
            negative: what to steer away from.
            count: how many, 1 to 10,000.
            seed: of the first, 0 to 2^63 - ``count``; the same seed, settings and machine give the same bits.
            steps, cfg_scale, solver, spacing, guidance: see ``Settings``; None takes the model's default.
            weights: False takes brackets in the prompts as text.
            strict: draw each picture in a batch of its own: slower, and its bits do not depend on ``count``.
            start: what the runs start from in place of noise, from ``start`` or ``invert``.

        Raises:
            UnnoiseError: a setting that cannot be run, an unknown name, or a prompt longer than the model reads.
        """
        count = checks.whole("count", count, 1, checks.PICTURES)
        seed, strict = checks.seed("seed", seed, count), checks.flag("strict", strict)
        prompt, negative = checks.text("prompt", prompt), checks.text("negative", negative)
        chosen = {"steps": steps, "cfg_scale": cfg_scale, "solver": solver, "spacing": spacing, "guidance": guidance}
        chosen["weights"] = checks.flag("weights", weights)
        pictures: list[Image.Image] = []
        for batch in batches(count, strict):
            seeds = [seed + i for i in batch]
            pictures += to_images(to_bytes(self.draw([prompt] * len(seeds), seeds, negative, start, **chosen)))
        return pictures

    def steps(
        self, prompt: str, negative: str = "", seed: int = 0, start: Start | None = None, **changes: Any
    ) -> Iterator[PictureStep]:
        """The steps of one picture's run, to look at one after the other.

        >>> for step in pipeline.steps("red apple"):   # doctest: +SKIP
        ...     step.picture.save(f"{step.index}.png")
        """
        settings = self.settings(**{"weights": True} | changes)
        run = self.run([checks.text("prompt", prompt)], [checks.seed("seed", seed)], negative, settings, start)
        return (PictureStep(step.index, settings.steps, step.here, step, self, start) for step in run)
