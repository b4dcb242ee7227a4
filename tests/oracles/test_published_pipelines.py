"""Whole pipelines against diffusers' own: from a folder that it saved, a prompt and a seed to pixels.

Nothing passes between the two sides but the prompt, the seed and the folder. Pixels are compared before they are
rounded to bytes, in [-1, 1]; the bound is a thousandth of that range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from torch import Tensor

from oracles.pipelines import SD, XL, large, single, tokenizer, varied
from unnoise.engine.engine import Engine, finished, sources_of
from unnoise.engine.foreign import Choices
from unnoise.engine.load import load_engine
from unnoise.weights.layouts import contents, write_original
from unnoise.weights.opening import open_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
BOUND = 1e-3 * 2  # of the range of pixels
PROMPT = "a red apple on (a) table, isn't it? 3 café"
NEGATIVE = "blurry, dark"
V = {"prediction_type": "v_prediction"}
ZERO = {**V, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


class Drawn(NamedTuple):
    """What one side draws: latents, and pixels about [-1, 1]."""

    latents: Tensor
    pixels: Tensor


def far(found: Drawn, wanted: Drawn) -> float:
    """The largest difference of pixels, after a look whether there is anything to compare."""
    assert found.pixels.shape == wanted.pixels.shape
    assert found.latents.shape == wanted.latents.shape
    assert 0.2 < float(wanted.pixels.std()) < 2, "a picture that is neither flat nor out of range"
    return float((found.pixels - wanted.pixels).abs().max())


@torch.inference_mode()
def theirs(pipe: Any, prompt: str | list[str] | None = PROMPT, seeds: tuple[int, ...] = (1,), **settings: Any) -> Drawn:
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    size = {} if "image" in settings and "mask_image" not in settings else {"height": 64, "width": 64}
    latents = pipe(prompt, output_type="latent", generator=generators, **{**size, **settings}).images
    return Drawn(latents, pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample)


@torch.inference_mode()
def ours(engine: Engine, prompt: str | list[str] = PROMPT, seeds: tuple[int, ...] = (1,), **settings: Any) -> Drawn:
    sources, own = sources_of(settings.pop("start", None), settings.pop("mask", None))
    prompts = [prompt] if isinstance(prompt, str) else prompt
    settings = {"size": (64, 64), **settings, **own}
    requests = [
        engine.request(each, seed=seed, noise="torch", **settings) for each, seed in zip(prompts, seeds, strict=True)
    ]
    latents = torch.cat([each.latents for each in finished(engine.draw(requests, sources)) if each.latents is not None])
    return Drawn(latents, engine.model.pixels(latents))


class Side(NamedTuple):
    """A pipeline of diffusers, and the folder in which it was saved."""

    pipe: Any
    folder: Path


MAKERS: dict[str, Callable[[], Any]] = {
    "sd1": single,
    "sd2": partial(single, two=True),
    "sdxl": large,
    "refiner": partial(large, refiner=True),
    "lcm": partial(single, cls=diffusers.LatentConsistencyModelPipeline, time_cond_proj_dim=256),
    "sd1-inpainting": partial(single, channels=9, cls=diffusers.StableDiffusionInpaintPipeline),
    "sdxl-inpainting": partial(large, channels=9, cls=diffusers.StableDiffusionXLInpaintPipeline),
}


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Side]:
    """Saves a pipeline once, and with other schedulers as asked for."""
    home = tmp_path_factory.mktemp("pipelines")

    @cache
    def saved(name: str) -> Side:
        pipe = MAKERS[name]()
        pipe.save_pretrained(home / name)
        return Side(pipe, home / name)

    def made(name: str, scheduler: str = "", **config: Any) -> Side:
        pipe, folder = saved(name)
        usual = XL if name in ("sdxl", "refiner", "sdxl-inpainting") else SD
        own = {"lcm": "LCMScheduler"}.get(name, "PNDMScheduler" if usual is SD else "EulerDiscreteScheduler")
        pipe.scheduler = getattr(diffusers, scheduler or own).from_config({**usual, **config})
        if not scheduler and not config and name != "lcm":
            return Side(pipe, folder)
        there = folder.with_name(f"{name}-{len(list(home.iterdir()))}")
        return Side(pipe, varied(folder, there.name, pipe.scheduler))

    return made


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs draws a sample of a picture's latents, with the run's generator; ours takes their mean, as ComfyUI."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


def picture(width: int = 64, height: int = 64) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray((255 * np.stack([x, y, 0.5 + 0.4 * np.sin(9 * x * y)], -1)).astype(np.uint8))


def hole() -> Image.Image:
    """A mask on the grid of eight pixels."""
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 24:64] = 255
    return Image.fromarray(mask)


def test_stable_diffusion_1(side: Callable[..., Side]) -> None:
    """By the folder's own defaults; then controls, each of which is a fault that people have met."""
    pipe, folder = side("sd1")
    wanted, engine = theirs(pipe, num_inference_steps=4), load_engine(folder)
    assert engine.model.defaults["solver"] == "plms"
    measured = far(ours(engine, steps=4), wanted)
    print(f"sd1: {measured:.1e}")
    assert measured < BOUND
    assert far(ours(engine, steps=4, spacing="leading(0)"), wanted) > BOUND, "the control: offset 0"
    assert far(ours(engine, steps=4, cfg_scale=6.5), wanted) > BOUND, "the control: guidance is counted from 1"
    assert far(ours(engine, steps=4, seeds=(2,)), wanted) > BOUND, "the control: another seed"


def test_stable_diffusion_xl(side: Callable[..., Side]) -> None:
    pipe, folder = side("sdxl")
    wanted, engine = theirs(pipe, num_inference_steps=4), load_engine(folder)
    measured = far(ours(engine, steps=4), wanted)
    print(f"sdxl: {measured:.1e}")
    assert measured < BOUND
    layout = engine.model.conditioner.layout
    engine.model.conditioner.layout = replace(layout, empty="encoded")
    assert far(ours(engine, steps=4), wanted) > BOUND, "the control: an empty negative prompt is zeros"


CFG = {"negative_prompt": NEGATIVE, "guidance_scale": 12.0}
OURS = {"negative": NEGATIVE, "cfg_scale": 12.0}
CASES: dict[str, tuple[tuple[str, str, dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    # what: (pipeline, scheduler, its config), settings there, settings here
    "sd1 ddim": (("sd1", "DDIMScheduler", {}), {}, {}),
    "sd1 ddim to data": (("sd1", "DDIMScheduler", {"set_alpha_to_one": True}), {}, {}),
    "sd1 ddim eta": (("sd1", "DDIMScheduler", {}), {"eta": 0.5}, {"solver": "ddim(eta=0.5)"}),
    "sd1 euler": (("sd1", "EulerDiscreteScheduler", {"timestep_spacing": "leading"}), {}, {}),
    "sd1 euler a": (("sd1", "EulerAncestralDiscreteScheduler", {"timestep_spacing": "leading"}), {}, {}),
    "sd1 dpm++ 2m": (("sd1", "DPMSolverMultistepScheduler", {}), {}, {}),
    "sd1 dpm++ 2m leading": (("sd1", "DPMSolverMultistepScheduler", {"timestep_spacing": "leading"}), {}, {}),
    "sd1 dpm++ 2m sde": (("sd1", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}), {}, {}),
    "sd1 unipc": (("sd1", "UniPCMultistepScheduler", {}), {}, {}),
    "sd1 ddpm": (("sd1", "DDPMScheduler", {}), {}, {}),
    "sd1 lcm": (("sd1", "LCMScheduler", {}), {"guidance_scale": 1.0}, {"cfg_scale": 1}),
    "sd1 negative": (("sd1", "", {}), CFG, OURS),
    "sd1 clip skip": (("sd1", "", {}), {"clip_skip": 1, "guidance_scale": 1.0}, {"clip_skip": 2, "cfg_scale": 1}),
    "sd1 104x72": (("sd1", "", {}), {"width": 104, "height": 72}, {"size": (104, 72)}),
    "sd2": (("sd2", "", {}), {}, {}),
    "sd2 v": (("sd2", "DDIMScheduler", V), CFG, OURS),
    "sd2 v zero snr": (("sd2", "DDIMScheduler", ZERO), {}, {}),
    "sdxl negative": (("sdxl", "", {}), CFG, OURS),
    "sdxl v": (("sdxl", "EulerDiscreteScheduler", V), {}, {}),
    "sdxl v zero snr": (("sdxl", "DDIMScheduler", ZERO), {}, {}),
    "sdxl clip skip": (("sdxl", "", {}), {"clip_skip": 1, "guidance_scale": 1.0}, {"clip_skip": 3, "cfg_scale": 1}),
    "sdxl 104x72": (("sdxl", "", {}), {"width": 104, "height": 72}, {"size": (104, 72)}),
    "lcm": (("lcm", "", {}), {}, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", CASES)
def test_pictures_are_the_same(side: Callable[..., Side], what: str) -> None:
    (name, scheduler, config), there, here = CASES[what]
    pipe, folder = side(name, scheduler, **config)
    pipe.text_encoder.__dict__["text_model"] = pipe.text_encoder  # a level that transformers 5 has not, for clip_skip
    wanted = theirs(pipe, num_inference_steps=5, **there)
    engine = load_engine(folder)
    measured = far(ours(engine, steps=5, **here), wanted)
    print(f"{what}: {measured:.1e}")
    assert measured < BOUND


@pytest.mark.slow
def test_two_prompts_at_a_time(side: Callable[..., Side]) -> None:
    pipe, folder = side("sd1")
    both = [PROMPT, "a dog"]
    wanted = theirs(pipe, both, (1, 2), num_inference_steps=4)
    engine = load_engine(folder)
    measured = far(ours(engine, both, (1, 2), steps=4), wanted)
    print(f"two: {measured:.1e}")
    assert measured < BOUND
    assert far(ours(engine, both, (2, 1), steps=4), wanted) > BOUND, "the control: seeds exchanged"


@pytest.mark.slow
@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("name", ["sd1", "refiner"])
def test_picture_to_picture(side: Callable[..., Side], name: str) -> None:
    """Asked for n steps they take strength x n of them; ours takes n, of n / strength."""
    pipe, folder = side(name, "DDIMScheduler" if name == "sd1" else "")
    kinds = {"sd1": diffusers.StableDiffusionImg2ImgPipeline, "refiner": diffusers.StableDiffusionXLImg2ImgPipeline}
    pipe = kinds[name](**pipe.components, **({"requires_safety_checker": False} if name == "sd1" else {}))
    if name == "refiner":
        pipe.register_to_config(requires_aesthetics_score=True, force_zeros_for_empty_prompt=False)
    wanted = theirs(pipe, num_inference_steps=10, strength=0.6, image=picture())
    engine = load_engine(folder)
    measured = far(ours(engine, steps=6, strength=0.6, start=picture()), wanted)
    print(f"{name} img2img: {measured:.1e}")
    assert measured < BOUND
    assert far(ours(engine, steps=6, strength=0.7, start=picture()), wanted) > BOUND, "the control"


@pytest.mark.slow
@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("name", ["sd1-inpainting", "sdxl-inpainting"])
def test_inpainting(side: Callable[..., Side], name: str) -> None:
    """By networks of nine channels, before what is kept is put back; their way with four is another method."""
    pipe, folder = side(name)
    there = {"strength": 1.0, "guidance_scale": 7.5, "image": picture(), "mask_image": hole()}
    wanted = theirs(pipe, num_inference_steps=4, **there)
    engine = load_engine(folder)
    measured = far(ours(engine, steps=4, cfg_scale=7.5, start=picture(), mask=hole()), wanted)
    print(f"{name}: {measured:.1e}")
    assert measured < BOUND
    whole = Image.fromarray(np.full((64, 64), 255, np.uint8))
    other = ours(engine, steps=4, cfg_scale=7.5, start=picture(), mask=whole)
    assert far(other, wanted) > BOUND, "the control: another mask"


@pytest.mark.slow
def test_a_long_prompt_is_read_in_rows_of_75(side: Callable[..., Side]) -> None:
    """Their pipelines cut such a prompt off; its rows, read one by one and laid side by side, are given to theirs."""
    pipe, folder = side("sd1")
    prompt = " ".join(["red apple, green pear, blue dog"] * 20)
    ids = pipe.tokenizer(prompt, truncation=False).input_ids[1:-1]
    assert len(ids) == 160, "three rows"

    def read(ids: list[int]) -> Tensor:
        row = [49406, *ids, *[49407] * (76 - len(ids))]
        embeds: Tensor = pipe.text_encoder(torch.tensor([row]))[0]
        return embeds

    with torch.inference_mode():
        rows = torch.cat([read(ids[place : place + 75]) for place in range(0, len(ids), 75)], 1)
        empty = read([]).repeat(1, rows.shape[1] // 77, 1)  # the same vectors twice weigh as much as once
    embeds = {"prompt_embeds": rows, "negative_prompt_embeds": empty}
    wanted = theirs(pipe, None, num_inference_steps=4, **embeds)
    engine = load_engine(folder)
    measured = far(ours(engine, prompt, steps=4), wanted)
    print(f"long: {measured:.1e}")
    assert measured < BOUND


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_a_single_file_of_ours_draws_the_same_there_and_here(
    side: Callable[..., Side], name: str, tmp_path: Path
) -> None:
    """Ours of the folder, in original names; theirs opens it by names and shapes, with the folder's settings."""
    pipe, folder = side(name)
    wanted = theirs(pipe, num_inference_steps=4)
    file = tmp_path / "single.safetensors"
    write_original(contents(open_model(folder)), file)
    kind = type(pipe)
    opened = kind.from_single_file(str(file), config=str(folder), local_files_only=True)
    there = far(theirs(opened, num_inference_steps=4), wanted)
    here = far(ours(load_engine(file), steps=4), wanted)
    print(f"{name} single: {there:.1e} {here:.1e}")
    assert there < BOUND
    assert here < BOUND


@pytest.mark.slow
def test_faults_are_seen(side: Callable[..., Side]) -> None:
    """The prediction, the padding of Stable Diffusion 2, and the scale of latents."""
    pipe, folder = side("sd2")
    engine = load_engine(folder)
    found = ours(engine, steps=4)
    wrong = load_engine(folder, choices=Choices(prediction="v"))
    assert far(ours(wrong, steps=4), found) > BOUND, "another prediction"
    usual, pipe.tokenizer = pipe.tokenizer, tokenizer("<|endoftext|>")
    assert far(theirs(pipe, num_inference_steps=4), found) > BOUND, "another padding"
    pipe.tokenizer = usual
    assert far(theirs(pipe, num_inference_steps=4), found) < BOUND
    pipe.vae.register_to_config(scaling_factor=0.13025)
    assert far(theirs(pipe, num_inference_steps=4), found) > BOUND, "another scale of latents"
    pipe.vae.register_to_config(scaling_factor=0.18215)


@pytest.mark.slow
def test_an_empty_negative_prompt_is_what_the_folder_says(side: Callable[..., Side], tmp_path: Path) -> None:
    pipe, _ = side("sdxl")
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    pipe.save_pretrained(tmp_path / "m")
    wanted = theirs(pipe, num_inference_steps=4)
    pipe.register_to_config(force_zeros_for_empty_prompt=True)
    measured = far(ours(load_engine(tmp_path / "m"), steps=4), wanted)
    print(f"sdxl encoded: {measured:.1e}")
    assert measured < BOUND
    assert far(theirs(pipe, num_inference_steps=4), wanted) > BOUND, "the control"


@pytest.mark.slow
def test_difference_start_of_euler(side: Callable[..., Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaced other than leading, their Euler starts from sigma z; ours, as ComfyUI, from z, whatever solves."""
    pipe, folder = side("sd1", "EulerDiscreteScheduler")
    found = ours(load_engine(folder), steps=4)
    assert BOUND < far(theirs(pipe, num_inference_steps=4), found) < 5 * BOUND
    kind = type(pipe.scheduler)
    whole = property(lambda self: (self.sigmas.max() ** 2 + 1) ** 0.5)
    monkeypatch.setattr(kind, "init_noise_sigma", whole)
    measured = far(theirs(pipe, num_inference_steps=4), found)
    print(f"euler linspace: {measured:.1e}")
    assert measured < BOUND
