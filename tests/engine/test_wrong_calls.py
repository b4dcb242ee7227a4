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
from drawing import draw
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
from unnoise.engine.engine import Engine
from unnoise.engine.model import Model
from unnoise.engine.outpaint import Canvas, Margins, margins, windows
from unnoise.engine.request import Request
from unnoise.engine.start import begin
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


def stay(x: torch.Tensor, here: NoiseLevel, there: NoiseLevel | None = None) -> Estimate:
    return Estimate(x, x)


def drawn(engine: Engine, *requests: Any, **how: Any) -> object:
    return list(engine.draw(requests, **how))


def made(engine: Engine, **parts: Any) -> Model:
    """The model with other parts, or another tokenizer or record."""
    model, record = engine.model, parts.pop("record", None)
    tokenizers = {"text": parts.pop("tokenizer", model.tower.tokenizer)}
    return Model(model.parts | parts, tokenizers, record)


HASH = "0" * 64  # what identifies a picture
NO_HASH = ["", "x", HASH[1:], HASH.replace("0", "A"), 3, b"0" * 64, Path("a.png"), RED]
NO_TEXT_OR_NONE = [t for t in NO_TEXT if t is not None]

Call = Callable[[Any, Any], object]  # of an engine and the wrong value
REQUESTS: list[tuple[str, list[Any]]] = [  # fields of a request, and what each of them cannot be
    ("prompt", NO_TEXT),
    ("negative", NO_TEXT_OR_NONE),
    ("seed", NO_SEED[1:]),
    (
        "size",
        [
            "",
            "12x",
            "axb",
            "-3x4",
            "1x2x3",
            0,
            -1,
            4097,
            (0, 8),
            (8, 4097),
            (1, 2, 3),
            (8.0, 8),
            ("8", 8),
            True,
            8.0,
            {},
        ],
    ),
    ("steps", NO_COUNT[1:]),
    ("cfg_scale", [*NO_NUMBER, INF, 101, -101]),
    ("solver", NO_TEXT_OR_NONE),
    ("solver", ["", "nothing", "ddim(", Heun(), Heun, "d" * 2000]),
    ("spacing", [*NO_TEXT_OR_NONE, "", "nothing"]),
    ("guidance", [*NO_TEXT_OR_NONE, CFG, Heun(), "", "nothing"]),
    ("noise", ["", "white", b"brownian", 1, True, ["brownian"]]),
    ("weights", NO_FLAG[1:]),
    ("start", NO_HASH),
    ("read", ["mid.0", b"mid", 3, [3], [None], {"mid.0": 1}]),
    ("read[1]", [("mid.0", 3), ["mid.0", None]]),
    ("adapters", ["a", ("a",), [1], 3]),
    ("rules", [0, 99, True, 1.0, "2"]),
]
STARTS: list[tuple[str, list[Any]]] = [  # fields that speak of a picture to start from
    ("strength", [0, 0.01, 1.5, -1, INF, *NO_NUMBER]),
    ("mask", NO_HASH),
    ("invert", NO_TEXT_OR_NONE),
    ("margins", [*NO_TEXT_OR_NONE, "", "0", "-4", "4,4", "513", "up=3"]),
]
FIELD = {"margins": "outpaint", "read[1]": "read"}  # where an error's name is not that of the field


def by_request(name: str, **more: Any) -> Call:
    return lambda p, v: Request(**{"prompt": "a", **more, FIELD.get(name, name): v})


def by_engine(name: str, **more: Any) -> Call:
    return lambda p, v: p.request(**{"prompt": "a", **more, FIELD.get(name, name): v})


def by_json(name: str, **more: Any) -> Call:
    return lambda p, v: Request.from_json({"prompt": "a", **more, name: v}, "the record")


CALLS: list[tuple[str, list[Any], Call]] = [
    *((name, values, by_request(name)) for name, values in REQUESTS),
    *((name, values, by_request(name, start=HASH)) for name, values in STARTS),
    *((name, values, by_engine(name)) for name, values in REQUESTS),
    *((name, values, by_engine(name, start=HASH)) for name, values in STARTS),
    *(
        (name, [value], by_request(name))
        for name, value in {"strength": 0.5, "mask": HASH, "invert": "a", "outpaint": "8"}.items()
    ),
    *(
        (name, [value], by_request(name, start=HASH, outpaint="8"))
        for name, value in {"strength": 0.5, "mask": HASH, "invert": "a"}.items()
    ),
    ("the record", [None, 3, "a", [], [1]], lambda p, v: Request.from_json(v, "the record")),
    (
        "the record",
        [0, -1, 2.0, True, "2", None],
        lambda p, v: Request.from_json({"prompt": "a", "format": v}, "the record"),
    ),
    ("newer", [4, 99, HUGE], lambda p, v: Request.from_json({"prompt": "a", "format": v}, "the record")),
    ("stepz", [3, None], by_json("stepz")),
    ("prompt", [{}], lambda p, v: Request.from_json(v, "the record")),
    ("guidance", [CFG(3.0)], lambda p, v: Request.from_json({"prompt": "a", "guidance": v}, "the record guidance")),
    *((name, values, by_json(name)) for name, values in (("steps", [0, 2.5, "3", True]), ("seed", [-1, 2**63]))),
    # drawing
    ("prompt", NO_TEXT, lambda p, v: p.generate(v)),
    ("negative", NO_TEXT, lambda p, v: p.generate("a", v)),
    ("count", NO_COUNT, lambda p, v: p.generate("a", count=v)),
    ("seed", NO_SEED, lambda p, v: p.generate("a", seed=v)),
    ("seed", [2**63 - 1, 2**63 - 2], lambda p, v: p.generate("a", seed=v, count=3)),
    ("steps", [w for w in NO_COUNT if w is not None], lambda p, v: p.generate("a", steps=v)),
    ("cfg_scale", [*NO_NUMBER, INF, 101, -101], lambda p, v: p.generate("a", cfg_scale=v)),
    ("solver", [*NO_TEXT_OR_NONE, Heun(), Heun], lambda p, v: p.generate("a", solver=v)),
    ("spacing", NO_TEXT_OR_NONE, lambda p, v: p.generate("a", spacing=v)),
    ("guidance", [*NO_TEXT_OR_NONE, CFG, Heun()], lambda p, v: p.generate("a", guidance=v)),
    (
        "guidance",
        ["autoguidance", "interval(rescale(autoguidance(2, weaker)))"],
        lambda p, v: p.generate("a", guidance=v),
    ),
    ("weights", NO_FLAG, lambda p, v: p.generate("a", weights=v)),
    ("strict", NO_FLAG, lambda p, v: p.generate("a", strict=v)),
    ("stepz", [3, None], lambda p, v: p.generate("a", stepz=v)),
    ("start", NO_PICTURE[1:], lambda p, v: p.generate("a", start=v)),
    ("mask", NO_PICTURE[1:], lambda p, v: p.generate("a", start=RED, mask=v)),
    ("mask", [Image.new("L", (8, 9), 255), Image.new("L", (8, 8))], lambda p, v: p.generate("a", start=RED, mask=v)),
    ("mask", [RED], lambda p, v: p.generate("a", mask=v)),
    ("strength", [0, 1.5, -1, INF, *NO_NUMBER], lambda p, v: p.generate("a", start=RED, strength=v)),
    ("invert", NO_TEXT_OR_NONE, lambda p, v: p.generate("a", start=RED, invert=v)),
    ("size", ["130x128", (128, 1), 4097, "wide"], lambda p, v: p.generate("a", size=v)),
    ("read", [("nowhere",), ["mid.0", "up"]], lambda p, v: p.generate("a", read=v)),
    ("prompt", NO_TEXT, lambda p, v: p.steps(v)),
    ("negative", NO_TEXT, lambda p, v: p.steps("a", v)),
    ("seed", NO_SEED, lambda p, v: p.steps("a", seed=v)),
    ("steps", [0, 2.0, "3", True], lambda p, v: p.steps("a", steps=v)),
    ("stepz", [3], lambda p, v: p.steps("a", stepz=v)),
    ("start", NO_PICTURE[1:], lambda p, v: p.steps("a", start=v)),
    ("prompt", NO_TEXT, lambda p, v: draw(p, ["a", v], [1, 2])),
    ("request", [None, 3, "a", {"prompt": "a"}, Request], lambda p, v: drawn(p, p.request("a"), v)),
    ("start", [HASH], lambda p, v: drawn(p, p.request("a"), p.request("a", start=v))),
    ("mask", [HASH], lambda p, v: drawn(p, p.request("a", start="1" * 64, mask=v), sources={"1" * 64: RED})),
    ("strict", NO_FLAG, lambda p, v: drawn(p, p.request("a"), strict=v)),
    ("prompts", ["ab", *NO_LIST], lambda p, v: p.model.encode(v)),
    ("prompts", ["ab", *NO_LIST], lambda p, v: p.model.encode(v, weights=True)),
    ("prompts[0]", NO_TEXT, lambda p, v: p.model.encode([v])),
    ("prompts[0]", NO_TEXT, lambda p, v: p.model.encode([v], weights=True)),
    ("weights", NO_FLAG, lambda p, v: p.model.encode(["a"], v)),
    ("z", [None, [], 3, RED, np.zeros((1, 4, 16, 16))], lambda p, v: p.model.decode(v)),
    (
        "z",
        [torch.zeros(4, 16, 16), torch.zeros(1, 3, 16, 16), torch.zeros(()), torch.zeros(2)],
        lambda p, v: p.model.decode(v),
    ),
    (
        "z",
        [torch.zeros(1, 4, 16, 16, dtype=torch.int64), torch.full((1, 4, 16, 16), NAN)],
        lambda p, v: p.model.decode(v),
    ),
    ("picture", NO_PICTURE, lambda p, v: begin(p.model.autoencoder, v, (128, 128), 1.0)),
    ("mask", NO_PICTURE[1:], lambda p, v: begin(p.model.autoencoder, RED, (128, 128), 1.0, v)),
    ("strength", [0, 1.5, -1, INF, *NO_NUMBER], lambda p, v: begin(p.model.autoencoder, RED, (128, 128), v)),
    ("model", [None, 3, "default", Model], lambda p, v: Engine(v)),
    ("room", [0, *NO_WHOLE], lambda p, v: Engine(p.model, v)),
    ("denoiser", [None, 3, torch.nn.Identity()], lambda p, v: made(p, denoiser=v)),
    ("autoencoder", [None, 3, torch.nn.Identity()], lambda p, v: made(p, autoencoder=v)),
    ("text", [None, "red"], lambda p, v: made(p, text=v)),
    ("tokenizer", [None, str], lambda p, v: made(p, tokenizer=v)),
    ("defaults", [3, {"stepz": 3}, {"prompt": "a"}, {"steps": 0}], lambda p, v: made(p, record={"defaults": v})),
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
    ("path", [None, "flow"], lambda p, v: Denoiser(p.model.denoiser.network, v, p.model.denoiser.prediction)),
    (
        "noise_label",
        [None, "sigma", 3, []],
        lambda p, v: Denoiser(p.model.denoiser.network, p.model.denoiser.path, p.model.denoiser.prediction, v),
    ),
    ("x", [None, [0.0], np.zeros((1, 4, 16, 16))], lambda p, v: p.model.denoiser(v, LEVELS[0])),
    ("here", [None, 0.5, (0.6, 0.8)], lambda p, v: p.model.denoiser(X0, v)),
    ("solver", NO_TEXT, lambda p, v: make("solvers", v)),
    ("kind", [None, "solverz", ["solvers"]], lambda p, v: index(v)),
    ("name", NO_TEXT, lambda p, v: find("solvers", v)),
    ("prompt", NO_TEXT, lambda p, v: emphasis.parse(v)),
    ("prompt", NO_TEXT, lambda p, v: p.model.tower.tokenizer.count(v)),
    ("prompts", ["ab", *NO_LIST], lambda p, v: p.model.tower.tokenizer(v)),
    ("json", NO_TEXT, lambda p, v: type(p.model.tower.tokenizer)(v, 32)),
    ("length", [*NO_WHOLE, 1, -1], lambda p, v: type(p.model.tower.tokenizer)(p.model.tower.tokenizer.json, v)),
    ("margins", NO_TEXT, lambda p, v: margins(v)),
    ("picture", NO_PICTURE, lambda p, v: Canvas(v, Margins(4), (8, 8))),
    ("by", [None, 4, "4", (1, 2), [], {}, Margins()], lambda p, v: Canvas(RED, v, (8, 8))),
    ("by.top", [*NO_WHOLE, -1, 513], lambda p, v: Canvas(RED, Margins(4, v), (8, 8))),
    ("size", [*NO_WHOLE, 0, -8], lambda p, v: list(windows(Margins(4), (8, v)))),
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
def test_a_wrong_call_names_its_argument(engine: Engine, name: str, values: list[Any], call: Call) -> None:
    for value in values:
        with pytest.raises(UnnoiseError) as caught:
            call(engine, value)
        assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", caught.value.what)
        assert caught.value.hint


@pytest.mark.usefixtures("asleep")
def test_work_that_begins_is_seen(engine: Engine) -> None:
    """The control: the same calls with right values do begin."""
    for call in (lambda: engine.generate("a", count=1), lambda: unnoise.load(device="cpu")):
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
            wrong = NO_TEXT if key == "network" else NO_SETTING[type(default)]  # networks have any names
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
    settings = {"custom": {"times": [1 - i / 200 for i in range(200)]}, "lcm": {"original": 200}}
    spacing = find("spacings", name)(**settings.get(name, {}))
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
    for value in wrong if name != "averages" else [None, 0.1, "0.1", [0.3], [True], [[0.1]], {0.1: 1}]:
        with pytest.raises(UnnoiseError, match=name):
            TrainSettings(**{"samples": 10, name: value})


def test_a_training_takes_any_spelling() -> None:
    given: dict[str, Any] = {"samples": np.int64(10), "averages": np.array([0.05, 0.1]), "seed": torch.tensor(3)}
    spelt = TrainSettings(rate=np.float64(0.5), **given)
    assert repr(spelt) == repr(TrainSettings(10, rate=0.5, averages=(0.05, 0.1), seed=3))
