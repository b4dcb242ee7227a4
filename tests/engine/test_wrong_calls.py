"""Every wrong call of the Python API is one ``UnnoiseError`` that names the argument, before anything is drawn."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import unnoise
from unnoise.core.denoiser import Denoiser
from unnoise.core.estimate import Estimate
from unnoise.core.guidance import bind
from unnoise.core.inversion import invert
from unnoise.core.level import NoiseLevel
from unnoise.core.noise import BrownianNoise, NoiseSource
from unnoise.core.notation import make
from unnoise.core.registry import find, index
from unnoise.core.sample import Run, sample
from unnoise.engine import emphasis
from unnoise.engine.outpaint import Margins, margins, outpaint, windows
from unnoise.engine.settings import Settings
from unnoise.engine.start import Start
from unnoise.engine.text_to_picture import Pipeline
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG
from unnoise.networks.unet import UNet
from unnoise.solvers.heun import Heun
from unnoise.training.settings import TrainSettings

HUGE = 10**5000  # Python itself refuses to write it out
NAN, INF = float("nan"), float("inf")
NO_WHOLE = [
    None,
    True,
    np.True_,
    torch.tensor(True),
    "3",
    b"3",
    3.0,
    np.float64(3),
    torch.tensor(3.0),
    torch.tensor([3]),
]
NO_WHOLE += [
    np.array([3]),
    [3],
    (3,),
    {},
    3 + 0j,
    Image.new("L", (3, 3)),
    Path("3"),
    int,
    NAN,
    torch.empty((), device="meta"),
]
NO_SEED = [*NO_WHOLE, -1, 2**63, HUGE, np.int8(-1)]
NO_COUNT = [*NO_WHOLE, 0, -1, 10_001, HUGE]
NO_NUMBER = [True, np.True_, torch.tensor(True), "3", np.str_("3"), b"3", [3.0], np.array([3.0]), torch.tensor([3.0])]
NO_NUMBER += [NAN, np.float32("nan"), torch.tensor(NAN), 3 + 0j, np.complex64(3), object(), HUGE, {}, Path("3"), float]
NO_TEXT = [None, 3, True, b"red apple", ["red apple"], Path("red apple"), np.array("red apple"), iter("red apple")]
NO_FLAG = [None, 2, -1, 1.0, "yes", "", b"", [], [True], np.array([True]), NAN, torch.tensor([1])]
NO_LIST = [
    None,
    3,
    3.5,
    True,
    {1: 2},
    {1, 2},
    (x for x in [1]),
    iter([1]),
    [],
    (),
    range(0),
    np.array(3),
    object(),
    list,
]
NO_PICTURE = [
    None,
    "a.png",
    Path("a.png"),
    b"\x89PNG",
    np.zeros((8, 8, 3), np.uint8),
    torch.zeros(3, 8, 8),
    [],
    Image.Image,
]

SHAPE = (4, 16, 16)  # of the tiny model's latents
X0, NOISE, LEVELS = torch.zeros(1, *SHAPE), NoiseSource([1], SHAPE), [NoiseLevel(0.0, 1.0), NoiseLevel(1.0, 0.0)]
RED = Image.new("RGB", (8, 8), "red")


def given(**fields: Any) -> Start:
    return Start(X0)._replace(**fields)


def stay(x: torch.Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
    return Estimate(x, x)


def same(window: Image.Image, mask: Image.Image, number: int) -> Image.Image:
    return window


Call = Callable[[Any, Any], object]  # of a pipeline and the wrong value
CALLS: list[tuple[str, list[Any], Call]] = [
    ("prompt", NO_TEXT, lambda p, v: p.generate(v)),
    ("negative", NO_TEXT, lambda p, v: p.generate("a", v)),
    ("count", NO_COUNT, lambda p, v: p.generate("a", count=v)),
    ("seed", NO_SEED, lambda p, v: p.generate("a", seed=v)),
    ("seed", [2**63 - 1, 2**63 - 2], lambda p, v: p.generate("a", seed=v, count=3)),
    ("steps", [w for w in NO_COUNT if w is not None], lambda p, v: p.generate("a", steps=v)),
    ("cfg_scale", [*NO_NUMBER, INF, 101, -101], lambda p, v: p.generate("a", cfg_scale=v)),
    ("solver", [t for t in NO_TEXT if t is not None], lambda p, v: p.generate("a", solver=v)),
    ("solver", ["", "nothing", "ddim(", Heun(), Heun, "d" * 2000], lambda p, v: p.generate("a", solver=v)),
    ("spacing", [t for t in NO_TEXT if t is not None], lambda p, v: p.generate("a", spacing=v)),
    ("guidance", [t for t in NO_TEXT if t is not None] + [CFG, Heun()], lambda p, v: p.generate("a", guidance=v)),
    ("weights", NO_FLAG, lambda p, v: p.generate("a", weights=v)),
    ("strict", NO_FLAG, lambda p, v: p.generate("a", strict=v)),
    ("prompts", ["ab", b"ab", np.array("ab"), *NO_LIST], lambda p, v: p.draw(v, [1, 2])),
    ("prompts[1]", NO_TEXT, lambda p, v: p.draw(["a", v], [1, 2])),
    ("seeds", ["12", b"12", range(10**12), range(10**30), *NO_LIST], lambda p, v: p.draw(["a", "b"], v)),
    ("seeds[1]", NO_SEED, lambda p, v: p.draw(["a", "b"], [1, v])),
    ("seeds[0]", [np.zeros((2, 2), int), torch.zeros(2), np.array([True, False])], lambda p, v: p.draw(["a", "b"], v)),
    ("seeds", [[1], [1, 2, 3], range(3)], lambda p, v: p.draw(["a", "b"], v)),
    ("negative", NO_TEXT, lambda p, v: p.draw(["a"], [1], v)),
    ("noise", ["", "white", b"brownian", 1, True, ["brownian"]], lambda p, v: p.draw(["a"], [1], noise=v)),
    ("stepz", [3, None], lambda p, v: p.draw(["a"], [1], stepz=v)),
    ("rules", [0, 99, True, 1.0, "2"], lambda p, v: p.draw(["a"], [1], rules=v)),
    ("prompts", ["ab", *NO_LIST], lambda p, v: p.run(v, [1])),
    ("seeds", ["12", *NO_LIST], lambda p, v: p.run(["a"], v)),
    ("settings", [{}, {"steps": 3}, 3, "steps=3", Settings], lambda p, v: p.run(["a"], [1], settings=v)),
    ("start", [RED, torch.zeros(1), 3, Start], lambda p, v: p.run(["a"], [1], start=v)),
    ("prompt", NO_TEXT, lambda p, v: p.steps(v)),
    ("negative", NO_TEXT, lambda p, v: p.steps("a", v)),
    ("seed", NO_SEED, lambda p, v: p.steps("a", seed=v)),
    ("steps", [0, 2.0, "3", True], lambda p, v: p.steps("a", steps=v)),
    ("stepz", [3], lambda p, v: p.steps("a", stepz=v)),
    ("prompts", ["ab", *NO_LIST], lambda p, v: p.encode(v)),
    ("prompts", ["ab", *NO_LIST], lambda p, v: p.encode(v, weights=True)),
    ("prompts[0]", NO_TEXT, lambda p, v: p.encode([v])),
    ("prompts[0]", NO_TEXT, lambda p, v: p.encode([v], weights=True)),
    ("weights", NO_FLAG, lambda p, v: p.encode(["a"], v)),
    ("picture", NO_PICTURE, lambda p, v: p.start(v)),
    ("mask", NO_PICTURE[1:], lambda p, v: p.start(RED, 0.5, v)),
    ("strength", [0, 1.5, -1, INF, *NO_NUMBER], lambda p, v: p.start(RED, v)),
    ("start", [None, RED, torch.zeros(1), Start], lambda p, v: p.invert(v, "a")),
    ("prompt", NO_TEXT, lambda p, v: p.invert(given(), v)),
    ("settings", [{}, 3], lambda p, v: p.invert(given(), "a", v)),
    ("rounds", [*NO_WHOLE, -1, HUGE], lambda p, v: p.invert(given(), "a", rounds=v)),
    ("z", [None, [], 3, RED, np.zeros((1, 4, 16, 16))], lambda p, v: p.decode(v)),
    (
        "z",
        [torch.zeros(4, 16, 16), torch.zeros(1, 3, 16, 16), torch.zeros(()), torch.zeros(2)],
        lambda p, v: p.decode(v),
    ),
    ("z", [torch.zeros(1, 4, 16, 16, dtype=torch.int64), torch.full((1, 4, 16, 16), NAN)], lambda p, v: p.decode(v)),
    ("x0", [None, 3, torch.zeros(3), torch.zeros(1, 3, 16, 16)], lambda p, v: p.run(["a"], [1], start=Start(v))),
    ("x0", [torch.zeros(3, 4, 16, 16)], lambda p, v: p.run(["a", "b"], [1, 2], start=Start(v))),
    ("strength", [None, 0, 1.5, NAN, "1"], lambda p, v: p.run(["a"], [1], start=given(strength=v))),
    (
        "mask",
        [3, Image.new("L", (8, 8)), torch.zeros(5)],
        lambda p, v: p.run(["a"], [1], start=given(mask=v)),
    ),
    ("state", [3, torch.zeros(5)], lambda p, v: p.run(["a"], [1], start=given(state=v))),
    ("steps", [None, *NO_COUNT], lambda p, v: Settings(steps=v)),
    ("cfg_scale", [None, *NO_NUMBER], lambda p, v: Settings(cfg_scale=v)),
    ("solver", NO_TEXT, lambda p, v: Settings(solver=v)),
    ("weights", NO_FLAG, lambda p, v: Settings(weights=v)),
    ("denoiser", [None, 3], lambda p, v: Pipeline(v, p.autoencoder, p.text, p.tokenizer)),
    ("autoencoder", [None, 3], lambda p, v: Pipeline(p.denoiser, v, p.text, p.tokenizer)),
    ("text", [None, "red"], lambda p, v: Pipeline(p.denoiser, p.autoencoder, v, p.tokenizer)),
    ("tokenizer", [None, str], lambda p, v: Pipeline(p.denoiser, p.autoencoder, p.text, v)),
    # the parts
    ("model", [3, True, b"x", ["x"], 1.5, "a\0b", torch.zeros(1), object()], lambda p, v: unnoise.load(v, "cpu")),
    (
        "device",
        [None, 0, True, "", "gpu", "cuda:x", b"cpu", ["cpu"], torch.float32],
        lambda p, v: unnoise.load(device=v),
    ),
    ("dtype", [None, float, "", "half", b"float32", 32, np.float32], lambda p, v: unnoise.load(device="cpu", dtype=v)),
    ("dtype", [torch.int8, torch.float64, torch.complex64], lambda p, v: unnoise.load(device="cpu", dtype=v)),
    ("threads", [0, 1025, *NO_WHOLE[1:]], lambda p, v: unnoise.load(threads=v)),
    ("compiled", NO_FLAG, lambda p, v: unnoise.load(compiled=v)),
    ("seeds", ["12", *NO_LIST], lambda p, v: NoiseSource(v, (4,))),
    ("seeds[0]", NO_SEED, lambda p, v: BrownianNoise([v], (4,))),
    ("shape", [None, 4, "4", {4}], lambda p, v: NoiseSource([1], v)),
    ("shape[0]", [0, *NO_WHOLE], lambda p, v: NoiseSource([1], (v,))),
    ("dtype", [None, "float32", np.float32, float], lambda p, v: NoiseSource([1], (4,), v)),
    ("device", [None, 0, "gpu", b"cpu"], lambda p, v: NoiseSource([1], (4,), device=v)),
    ("index", [None, -1, INF, *NO_NUMBER], lambda p, v: NoiseSource([1], (4,), index=v)),
    ("denoise", [None, 3], lambda p, v: sample(v, Heun(), LEVELS, X0, NOISE)),
    ("solver", [None, "heun", Heun], lambda p, v: sample(stay, v, LEVELS, X0, NOISE)),
    ("levels", [None, 3, "ab", iter(())], lambda p, v: sample(stay, Heun(), v, X0, NOISE)),
    ("levels[0]", [[(0.6, 0.8), (1.0, 0.0)], [1.0, 0.0]], lambda p, v: sample(stay, Heun(), v, X0, NOISE)),
    ("x", [None, 3, [0.0]], lambda p, v: sample(stay, Heun(), LEVELS, v, NOISE)),
    ("noise", [None, 3, X0, "brownian"], lambda p, v: sample(stay, Heun(), LEVELS, X0, v)),
    ("run", [3, X0, Run], lambda p, v: sample(stay, Heun(), LEVELS, X0, NOISE, v)),
    ("levels", [None, 3, "ab"], lambda p, v: invert(stay, v, X0)),
    ("rounds", [-1, *NO_WHOLE], lambda p, v: invert(stay, LEVELS, X0, v)),
    ("guidance", [None, "cfg", CFG], lambda p, v: bind(v, stay, {"cond": None})),
    ("cond", [None, {}, [], {"uncond": None}], lambda p, v: bind(CFG(), stay, v)),
    ("path", [None, "flow"], lambda p, v: Denoiser(p.denoiser.network, v, p.denoiser.prediction)),
    (
        "noise_label",
        [None, "sigma", 3, []],
        lambda p, v: Denoiser(p.denoiser.network, p.denoiser.path, p.denoiser.prediction, v),
    ),
    ("x", [None, [0.0], np.zeros((1, 4, 16, 16))], lambda p, v: p.denoiser(v, LEVELS[0])),
    ("here", [None, 0.5, (0.6, 0.8)], lambda p, v: p.denoiser(X0, v)),
    ("solver", NO_TEXT, lambda p, v: make("solvers", v)),
    ("kind", [None, "solverz", ["solvers"]], lambda p, v: index(v)),
    ("name", NO_TEXT, lambda p, v: find("solvers", v)),
    ("prompt", NO_TEXT, lambda p, v: emphasis.parse(v)),
    ("prompt", NO_TEXT, lambda p, v: p.tokenizer.count(v)),
    ("prompts", ["ab", *NO_LIST], lambda p, v: p.tokenizer(v)),
    ("json", NO_TEXT, lambda p, v: type(p.tokenizer)(v, 32)),
    ("length", [*NO_WHOLE, 1, -1], lambda p, v: type(p.tokenizer)(p.tokenizer.json, v)),
    ("margins", NO_TEXT, lambda p, v: margins(v)),
    ("picture", NO_PICTURE, lambda p, v: outpaint(v, Margins(4), 8, same)),
    ("by", [None, 4, "4", (1, 2), [], {}, Margins()], lambda p, v: outpaint(RED, v, 8, same)),
    ("by.top", [*NO_WHOLE, -1, 513], lambda p, v: outpaint(RED, Margins(4, v), 8, same)),
    ("size", [*NO_WHOLE, 0, -8], lambda p, v: list(windows(Margins(4), v))),
    ("fill", [None, 3], lambda p, v: outpaint(RED, Margins(4), 8, v)),
]


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network may be asked and no model read."""

    def awake(*_: Any, **__: Any) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(UNet, "forward", awake)
    monkeypatch.setattr("unnoise.engine.load.load_model", awake)


@pytest.mark.usefixtures("asleep")
@pytest.mark.parametrize(("name", "values", "call"), CALLS, ids=[f"{i}-{row[0]}" for i, row in enumerate(CALLS)])
def test_a_wrong_call_names_its_argument(pipeline: Pipeline, name: str, values: list[Any], call: Call) -> None:
    for value in values:
        with pytest.raises(UnnoiseError) as caught:
            call(pipeline, value)
        assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", caught.value.what)
        assert caught.value.hint


@pytest.mark.usefixtures("asleep")
def test_work_that_begins_is_seen(pipeline: Pipeline) -> None:
    """The control: the same calls with right values do begin."""
    for call in (lambda: pipeline.generate("a", count=1), lambda: unnoise.load(device="cpu")):
        with pytest.raises(AssertionError, match="work began"):
            call()


# methods: what every setting of every method refuses, by the kind of its default

KINDS = ("paths", "predictions", "spacings", "solvers", "guidances", "objectives")
NO_SETTING: dict[type, list[Any]] = {
    bool: NO_FLAG,
    int: [None, *NO_WHOLE],
    float: [None, *NO_NUMBER],
    str: [*NO_TEXT, "?"],
}


def methods() -> Iterator[tuple[str, Any, inspect.Parameter]]:
    """(name, class, setting) of every method that the registry knows and that can be made without a network."""
    for kind in KINDS:
        for name in index(kind):
            cls = find(kind, name)
            parameters = inspect.signature(cls).parameters.values()
            if not any(each.default is inspect.Parameter.empty for each in parameters):
                yield from ((name, cls, each) for each in parameters)


def settings() -> Iterator[Any]:
    """(class, setting, wrong values) of every method."""
    for name, cls, parameter in methods():
        key, default, hint = parameter.name, parameter.default, str(parameter.annotation)
        wrong: list[Any] = [object(), 3j, b"x", {}]
        if type(default) in NO_SETTING:
            wrong = NO_SETTING[type(default)]
        elif hint == "float | None":
            wrong = NO_NUMBER
        elif "Sequence" in hint:
            wrong = [3, True, {1: 2}, iter([1]), b"ab", [], [None], [[1]], object()]
        yield pytest.param(cls, key, wrong, id=f"{name}-{key}")


@pytest.mark.parametrize(("cls", "key", "wrong"), list(settings()))
def test_a_method_refuses_what_its_setting_cannot_be(cls: Any, key: str, wrong: list[Any]) -> None:
    for value in wrong:
        with pytest.raises(UnnoiseError, match=key):
            cls(**{key: value})


def numbers() -> Iterator[Any]:
    for name, cls, parameter in methods():
        if type(parameter.default) in (int, float):
            yield pytest.param(cls, parameter.name, parameter.default, id=f"{name}-{parameter.name}")


@pytest.mark.parametrize(("cls", "key", "default"), list(numbers()))
def test_a_method_s_numbers_may_be_spelt_otherwise(cls: Any, key: str, default: float) -> None:
    plain = plainly(cls(**{key: default}))
    kinds = (np.int64, torch.tensor, np.array) if type(default) is int else (np.float64, np.array, torch.float64)
    for spell in kinds:
        other = torch.tensor(default, dtype=spell) if isinstance(spell, torch.dtype) else spell(default)
        assert plainly(cls(**{key: other})) == plain


def plainly(method: Any) -> str:
    """All that a method holds, as text that tells 1 from 1.0 and from NumPy's."""
    return repr({k: plainly(v) if hasattr(v, "__dict__") else v for k, v in sorted(vars(method).items())})


@pytest.mark.parametrize("steps", [*NO_WHOLE, 0, -1, 100_001, HUGE], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", index("spacings"))
def test_a_spacing_refuses_what_is_no_number_of_steps(name: str, steps: Any) -> None:
    spacing = find("spacings", name)(**({"times": [1.0]} if name == "custom" else {}))
    with pytest.raises(UnnoiseError, match="num_steps"):
        spacing.levels(find("paths", "flow")(), steps, (4, 16, 16))
    with pytest.raises(UnnoiseError, match="path"):
        spacing.levels("flow", 1, (4, 16, 16))


@pytest.mark.parametrize("name", index("spacings"))
def test_a_spacing_takes_any_spelling_of_its_steps(name: str) -> None:
    """200 steps of a thousand levels: products of eight bits would wrap."""
    spacing = find("spacings", name)(**({"times": [1 - i / 200 for i in range(200)]} if name == "custom" else {}))
    path = find("paths", "ve" if name == "align-your-steps" else "vp")()
    plain = spacing.levels(path, 200, (4, 16, 16))
    assert spacing.levels(path, np.uint8(200), (4, 16, 16)) == plain


# trainings

NUMBERS = ("rate", "matrix_rate", "weight_decay", "cooldown", "clip")
WHOLES = (
    "samples",
    "batch",
    "micro_batch",
    "warmup",
    "checkpoint_every",
    "preview_every",
    "watch_every",
    "keep",
    "seed",
)


@pytest.mark.parametrize("name", [*NUMBERS, *WHOLES, "averages"])
def test_a_training_refuses_what_its_setting_cannot_be(name: str) -> None:
    wrong = [None, -1, *(NO_NUMBER if name in NUMBERS else NO_WHOLE)]
    for value in wrong if name != "averages" else [None, 0.1, (), "0.1", [0.3], [True], [[0.1]], {0.1: 1}]:
        with pytest.raises(UnnoiseError, match=name):
            TrainSettings(**{"samples": 10, name: value})


def test_a_training_takes_any_spelling() -> None:
    given: dict[str, Any] = {"samples": np.int64(10), "averages": np.array([0.05, 0.1]), "seed": torch.tensor(3)}
    spelt = TrainSettings(rate=np.float64(0.5), **given)
    assert repr(spelt) == repr(TrainSettings(10, rate=0.5, averages=(0.05, 0.1), seed=3))
