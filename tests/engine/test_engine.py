"""The engine draws what its seeds, prompts and settings say, and nothing else decides."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from drawing import draw, requests_of
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import Parts
from unnoise.core.level import NoiseLevel
from unnoise.core.registry import index
from unnoise.engine.engine import Engine
from unnoise.engine.events import Admitted, Cancelled, Failed, Finished, Stepped
from unnoise.engine.load import load_engine, model_folder
from unnoise.engine.request import Request
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG
from unnoise.guidances.plain import Plain
from unnoise.pictures import sheet, to_bytes, to_images

PROMPT = "red apple"


def bits(images: list[Image.Image]) -> list[bytes]:
    return [image.tobytes() for image in images]


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


# seeds


def test_the_same_seed_gives_the_same_bits(engine: Engine) -> None:
    first = engine.generate(PROMPT, count=2, seed=7)
    assert [(image.size, image.mode) for image in first] == [((128, 128), "RGB")] * 2
    torch.manual_seed(1)  # the global generator has no say
    assert bits(engine.generate(PROMPT, count=2, seed=7)) == bits(first)


def test_another_seed_gives_another_picture(engine: Engine) -> None:
    drawn = bits(engine.generate(PROMPT, count=3, seed=7))
    assert len(set(drawn)) == 3
    assert bits(engine.generate(PROMPT, seed=10))[0] not in drawn


@pytest.mark.parametrize("solver", ["euler", "ddpm"])
def test_a_picture_does_not_depend_on_the_batch(engine: Engine, solver: str) -> None:
    """Picture i of four is the one drawn alone with seed + i; noise that is drawn on the way too."""
    together = draw(engine, [PROMPT] * 4, [7, 8, 9, 10], solver=solver)
    for i in range(4):
        assert distance(draw(engine, [PROMPT], [7 + i], solver=solver)[0], together[i]) < 1e-4
    alone = engine.generate(PROMPT, seed=10, solver=solver)[0]
    fourth = engine.generate(PROMPT, seed=7, count=4, solver=solver)[3]
    assert np.abs(np.asarray(alone, int) - np.asarray(fourth, int)).max() <= 1


def test_rows_of_one_batch_may_have_unlike_prompts(engine: Engine) -> None:
    mixed = draw(engine, [PROMPT, "blue heart"], [1, 2])
    assert distance(mixed[1], draw(engine, ["blue heart"], [2])[0]) < 1e-4


def test_many_pictures_are_drawn_in_batches(engine: Engine) -> None:
    drawn = bits(engine.generate(PROMPT, count=18, seed=3, steps=1))
    assert len(drawn) == 18
    assert bits(engine.generate(PROMPT, count=2, seed=19, steps=1)) == drawn[16:]


def test_threads_may_share_an_engine(engine: Engine) -> None:
    def one(seed: int) -> bytes:
        return bits(engine.generate(PROMPT, seed=seed, solver="dpmpp-2m", steps=6))[0]

    alone = [one(seed) for seed in range(6)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, range(6))) == alone


# prompts and guidance


def test_guidance_at_0_1_and_3(engine: Engine) -> None:
    def one(prompt: str, scale: float, negative: str = "") -> torch.Tensor:
        return draw(engine, [prompt], [1], negative, cfg_scale=scale)

    assert torch.equal(one(PROMPT, 0), one("blue heart", 0)), "0 ignores the prompt"
    assert torch.equal(one(PROMPT, 1), one(PROMPT, 1, "blue heart")), "1 does not look at the negative one"
    assert not torch.equal(one(PROMPT, 3), one(PROMPT, 3, "blue heart"))
    assert not torch.equal(one(PROMPT, 3), one("blue heart", 3))
    assert distance(one(PROMPT, 1), one(PROMPT, 3)) > 1e-3
    assert distance(one(PROMPT, 3, PROMPT), one(PROMPT, 1)) < 1e-3, "away from itself is nowhere"


def test_a_guidance_of_ones_own(engine: Engine) -> None:
    plain = draw(engine, [PROMPT], [1], guidance=Plain())
    assert torch.equal(plain, draw(engine, [PROMPT], [1], cfg_scale=1))
    assert torch.equal(draw(engine, [PROMPT], [1], guidance=CFG(3.0)), draw(engine, [PROMPT], [1], cfg_scale=3))


def test_letter_case_does_not_matter(engine: Engine) -> None:
    assert bits(engine.generate("Red APPLE")) == bits(engine.generate("red apple"))


def test_blanks_and_normal_forms_do_not_matter(engine: Engine) -> None:
    """Of a prompt, a negative prompt, and what an inversion is told."""
    for typed, same in ((" red\u00a0 apple\n", "red apple"), ("cafe\u0301", "caf\u00e9")):
        for weights in (True, False):
            drawn = [bits(engine.generate("dog", p, weights=weights)) for p in (typed, same)]
            drawn += [bits(engine.generate(p, "dog", weights=weights)) for p in (typed, same)]
            assert drawn[0] == drawn[1]
            assert drawn[2] == drawn[3]
        start = Image.new("RGB", (128, 128), "red")
        assert len({bits(engine.generate("dog", start=start, invert=p))[0] for p in (typed, same)}) == 1


def test_a_prompt_that_is_too_long_is_refused(engine: Engine) -> None:
    for prompt, negative in ((" ".join(["apple"] * 99), ""), ("", "x" * 5000)):
        with pytest.raises(UnnoiseError, match=r"the prompt has \d+ (tokens|characters)"):
            engine.generate(prompt, negative)


# settings


def pairs() -> Iterator[Any]:
    """Every solver with every spacing; a quarter of them in the short suite, in which each occurs several times."""
    for (i, solver), (j, spacing) in product(enumerate(index("solvers")), enumerate(index("spacings"))):
        yield pytest.param(solver, spacing, marks=pytest.mark.slow if (i + j) % 4 else ())


@pytest.mark.parametrize(("solver", "spacing"), list(pairs()))
def test_every_solver_runs_on_every_spacing(engine: Engine, solver: str, spacing: str) -> None:
    if spacing == "custom":
        with pytest.raises(UnnoiseError, match="custom spacing wants"):
            draw(engine, [PROMPT], [1], solver=solver, spacing=spacing, steps=3)
        return
    for steps in (1, 3):
        drawn = draw(engine, [PROMPT], [1], solver=solver, spacing=spacing, steps=steps)
        assert drawn.shape == (1, 3, 128, 128)
        assert torch.isfinite(drawn).all()


def test_defaults_are_the_models(engine: Engine) -> None:
    assert engine.model.defaults == {"steps": 4, "solver": "euler", "spacing": "trailing", "cfg_scale": 2.0}
    wanted = Request("", size=(128, 128), steps=9, solver="euler", spacing="trailing", guidance="cfg(2)")
    assert engine.request("", steps=9, solver=None) == wanted
    assert engine.request("", cfg_scale=5, guidance="rescale").guidance == "rescale(cfg(5))"
    assert bits(engine.generate(PROMPT)) == bits(engine.generate(PROMPT, steps=4, solver="euler", cfg_scale=2.0))


WRONG = {
    "steps": [0, -1, 10_001, 2.5, "many"],
    "cfg_scale": [float("nan"), float("inf"), 101, -101],
    "solver": ["", "eulr", "os.system"],
    "spacing": ["", "trailling"],
    "guidance": ["", "cfgg", "autoguidance", "interval(rescale(autoguidance(2, weaker)))"],
    "size": ["", "12x", (0, 128), (128, 5000), (100, 128), "128x130"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_settings_that_cannot_be_run_are_refused(engine: Engine, name: str, value: object) -> None:
    with pytest.raises(UnnoiseError):
        engine.generate(PROMPT, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(UnnoiseError):
        engine.model.check(engine.request("", **{name: value}))


def test_a_misspelt_name_is_answered_with_the_nearest(engine: Engine) -> None:
    with pytest.raises(UnnoiseError, match=r"did you mean.* euler"):
        engine.request("", solver="eulr")


@pytest.mark.parametrize("count", [0, -3])
def test_no_pictures_are_refused(engine: Engine, count: int) -> None:
    with pytest.raises(UnnoiseError, match=f"count {count} is out of range"):
        engine.generate(PROMPT, count=count)


# steps


def test_steps_can_be_looked_at(engine: Engine) -> None:
    seen = list(engine.steps(PROMPT, seed=7, steps=5))
    assert [step.index for step in seen] == [0, 1, 2, 3, 4]
    assert {step.num_steps for step in seen} == {5}
    assert [float(step.level.sigma) for step in seen] == sorted((float(s.level.sigma) for s in seen), reverse=True)
    for step in seen:
        for image in (step.picture, step.noisy, step.finished):
            assert (image.size, image.mode) == ((128, 128), "RGB")
    assert bits([seen[-1].finished]) == bits(engine.generate(PROMPT, seed=7, steps=5))
    assert bits([seen[-1].picture]) == bits([seen[-1].finished]), "the last step goes to the prediction itself"
    assert bits([seen[1].noisy]) == bits([seen[0].finished])


def test_a_run_left_half_way_leaves_no_trace(engine: Engine) -> None:
    wanted = bits(engine.generate(PROMPT, seed=7, steps=5))
    steps = engine.steps(PROMPT, seed=7, steps=5)
    for _ in range(2):
        next(steps).picture  # noqa: B018
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    other = bits(engine.generate(PROMPT, seed=7, steps=5))  # another run while the first one waits
    assert other == wanted
    assert bits([list(steps)[-1].finished]) == wanted
    abandoned: Iterator[object] = engine.steps(PROMPT)
    next(abandoned)
    del abandoned
    assert not torch.is_inference_mode_enabled()
    weight = torch.ones(1, requires_grad=True)
    (weight * 2).backward()
    assert weight.grad is not None


def test_mistakes_are_told_before_a_step_is_asked_for(engine: Engine) -> None:
    with pytest.raises(UnnoiseError, match="steps 0 is out of range"):
        engine.steps(PROMPT, steps=0)
    with pytest.raises(UnnoiseError, match=r"the prompt has \d+ tokens"):
        engine.draw([engine.request(PROMPT), engine.request(" ".join(["apple"] * 99))])


def test_what_happens_is_told_in_its_order(engine: Engine) -> None:
    """Requests that wait begin when others are done; all are numbered in the order in which they were handed over."""
    narrow = Engine(engine.model, room=2)
    requests = requests_of(engine, [PROMPT] * 3, [1, 2, 3], steps=2)
    events = list(narrow.draw(requests))
    told = [(type(each), each.number) for each in events]
    two = [(kind, number) for kind in (Admitted, Stepped, Stepped, Finished) for number in (0, 1)]
    third = [(Admitted, 2), (Stepped, 2), (Stepped, 2), (Finished, 2)]
    assert [each for each in told if each[1] < 2] == two
    assert [each for each in told if each[1] == 2] == third
    assert told.index((Admitted, 2)) > told.index((Finished, 1))
    done = [each for each in events if isinstance(each, Finished)]
    assert [each.request for each in done] == requests
    assert [(each.row, each.batch, each.shared) for each in done] == [(0, 2, False), (1, 2, False), (0, 1, False)]
    strict = [each for each in narrow.draw(requests, strict=True) if isinstance(each, Finished)]
    assert [(each.row, each.batch, each.shared) for each in strict] == [(0, 1, False)] * 3


def test_unlike_requests_share_calls_and_say_so(engine: Engine) -> None:
    """Other solvers, lengths, scales and sizes in one loop: each is what it is alone, within rounding."""
    unlike: list[dict[str, Any]] = [
        {"steps": 3},
        {"steps": 5, "solver": "heun", "cfg_scale": 1},
        {"steps": 2, "solver": "ddpm", "size": (144, 112)},
    ]
    requests = [engine.request(PROMPT, seed=4, **changes) for changes in unlike]
    done = sorted((each for each in engine.draw(requests) if isinstance(each, Finished)), key=lambda e: e.number)
    assert [(each.row, each.batch, each.shared) for each in done] == [(0, 1, True)] * 3
    assert [each.picture.size for each in done] == [(128, 128), (128, 128), (144, 112)]
    for each in done:
        (alone,) = (one for one in engine.draw([each.request]) if isinstance(one, Finished))
        assert not alone.shared
        assert distance(each.latents, alone.latents) < 1e-4  # type: ignore[arg-type]


def test_one_that_fails_or_is_cancelled_fails_alone(engine: Engine) -> None:
    """Numbers that blow up in one, and another that is dropped half way."""

    class Broken(CFG):
        def combine(self, parts: Parts, x: torch.Tensor, here: NoiseLevel, memory: Any) -> tuple[Estimate, Any]:
            e, memory = super().combine(parts, x, here, memory)
            return (e if here.sigma > 0.9 else Estimate(e.x0 * torch.nan, e.eps)), memory

    requests = [
        engine.request(PROMPT, seed=1, steps=3),
        engine.request(PROMPT, seed=2, steps=3, guidance=Broken()),
        engine.request(PROMPT, seed=3, steps=3),
    ]
    live = engine.live()
    for request in requests:
        live.add(request)
    events = live.tick()
    live.cancel(2)
    while live:
        events += live.tick()
    failed = {each.number: each.error for each in events if isinstance(each, Failed)}
    assert failed.keys() == {1, 2}
    assert "step 2 of 3" in failed[1].what
    assert isinstance(failed[2], Cancelled)
    (done,) = (each for each in events if isinstance(each, Finished))
    (alone,) = (each for each in engine.draw(requests[:1]) if isinstance(each, Finished))
    assert done.number == 0
    assert distance(done.latents, alone.latents) < 1e-4  # type: ignore[arg-type]


def test_numbers_that_blow_up_are_told(tiny_model: Path) -> None:
    broken = load_engine(tiny_model, "cpu")
    next(broken.model.denoiser.parameters()).fill_(float("nan"))
    with pytest.raises(UnnoiseError, match=r"step 1 of 4 .* not finite"):
        broken.generate(PROMPT)


# loading


def test_devices_and_dtypes_that_cannot_be_had_are_refused(tiny_model: Path) -> None:
    for device in ("cuda:99", "gpu", "", "meta", "xpu", "cpu:7", "mps:7"):
        with pytest.raises(UnnoiseError):
            load_engine(tiny_model, device)
    for dtype in ("float16", torch.float16, "float64", ""):
        with pytest.raises(UnnoiseError):
            load_engine(tiny_model, "cpu", dtype)
    for threads in (0, -1, 5000):
        with pytest.raises(UnnoiseError, match="threads"):
            load_engine(tiny_model, "cpu", threads=threads)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_is_refused_where_there_is_none(tiny_model: Path) -> None:
    with pytest.raises(UnnoiseError, match="no CUDA GPU; use --device cpu"):
        load_engine(tiny_model, "cuda")


def test_bfloat16_draws_about_the_same(tiny_model: Path, engine: Engine) -> None:
    half = load_engine(tiny_model, "cpu", "bfloat16")
    assert half.model.dtype == torch.bfloat16
    exact, rough = (draw(each, [PROMPT], [1]) for each in (engine, half))
    assert rough.dtype == torch.float32
    assert distance(exact, rough) < 0.1 * float(exact.abs().max())


def test_a_training_s_folder_means_its_model(tmp_path: Path) -> None:
    tiny.save(tmp_path / "run" / "model")
    assert model_folder(tmp_path / "run") == tmp_path / "run" / "model"
    assert load_engine(tmp_path / "run", "cpu").model.record["name"] == "tiny"
    for missing in (tmp_path, tmp_path / "nothing", tmp_path / "run" / "model" / "model.json", "a" * 5000):
        with pytest.raises(UnnoiseError, match=r"no model at|no file, folder or listed model"):
            load_engine(missing, "cpu")


def test_load_is_the_front_door(tiny_model: Path, engine: Engine) -> None:
    import unnoise

    assert bits(unnoise.load(tiny_model, "cpu").generate(PROMPT)) == bits(engine.generate(PROMPT))


# pictures


def test_pictures_are_rounded_and_clipped() -> None:
    x = torch.tensor([-5.0, -1.0, 0.0, 1.0, 5.0])
    assert to_bytes(x).tolist() == [0, 0, 128, 255, 255]
    rows = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    images = to_images(rows)
    assert [image.size for image in images] == [(5, 4)] * 2
    assert images[1].getpixel((2, 3)) == tuple(rows[1, :, 3, 2].tolist())


def test_a_sheet_is_filled_row_by_row() -> None:
    images = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(5)]
    out = sheet(images, columns=2, gap=1)
    assert out.size == (11, 16)
    assert [out.getpixel(place) for place in ((1, 1), (6, 1), (1, 6))] == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
    assert out.getpixel((10, 15)) == (255, 255, 255)
