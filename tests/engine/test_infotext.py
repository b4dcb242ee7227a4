"""What other programs read in our pictures: the package sd-parsers, and our own reader of the lines alone."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sd_parsers import ParserManager
from sd_parsers.data import Generators

from drawing import record
from unnoise.core.registry import index
from unnoise.engine import names
from unnoise.engine.engine import Engine
from unnoise.engine.metadata import grid_to_png, infotext, to_png
from unnoise.engine.readers import infotext as reader
from unnoise.engine.readers.read import read_settings

PICTURE = Image.new("RGB", (8, 8))
PROMPTS = [
    "red apple",
    "a (red:1.4) apple, [blue], {braces}",
    'an "apple", with: colons, and \\ a backslash',
    "Steps: 5, Sampler: Heun, CFG scale: 9, Seed: 3, Size: 1x1",
    "a sign that says Negative prompt: none",
    "Negative prompt: everything",
    "Hashes: {} apple",
    '{"prompt": "a graph", "class_type": "KSampler"}',
    "リンゴ, \N{RED APPLE}, \N{MAN}\N{ZERO WIDTH JOINER}\N{BOY}, naïve",
]


def parsed(data: bytes) -> tuple[Any, dict[Any, Any]]:
    """(the one sampler, the rest) that sd-parsers finds in a PNG."""
    found = ParserManager().parse(io.BytesIO(data))
    assert found is not None
    assert found.generator is Generators.AUTOMATIC1111
    (sampler,) = found.samplers
    return sampler, found.metadata


@pytest.mark.parametrize("negative", ["", "blue, (dark:1.2)", "no Negative prompt: here"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_arrive(prompt: str, negative: str, engine: Engine, tmp_path: Path) -> None:
    """As they are, but for the one phrase that others split at, which gets a blank; in our own record as they are."""
    data = to_png(PICTURE, record(engine, prompt, negative=negative))
    sampler, _ = parsed(data)
    spaced = [text.replace("Negative prompt:", "Negative prompt :") for text in (prompt, negative)]
    assert [each.value for each in sampler.prompts] == spaced[:1]
    assert [each.value for each in sampler.negative_prompts] == [spaced[1]] * bool(negative)
    assert (sampler.name, sampler.parameters["steps"], sampler.parameters["seed"]) == ("Euler", "4", "7")
    (tmp_path / "a.png").write_bytes(data)
    own = read_settings(tmp_path / "a.png")
    assert own is not None
    assert (own.tool, own.prompt, own.negative, own.steps) == ("unnoise", prompt, negative, 4)
    alone = reader.read({"parameters": Image.open(io.BytesIO(data)).text["parameters"]})  # type: ignore[attr-defined]
    assert alone is not None
    assert (alone.prompt, alone.negative, alone.steps, alone.seed) == (*spaced, 4, 7)


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ({"solver": "euler-a", "spacing": "karras"}, ("Euler a", "Karras", "2")),
        ({"solver": "dpmpp-2m", "spacing": "curve(times=[1, 0.7, 0.3])"}, ("DPM++ 2M", "Custom", "2")),
        ({"solver": "ddim(eta=0.5)", "spacing": "shifted(2, karras)"}, ("DDIM", "Custom", "2")),
        ({"solver": "dpmpp-2m-sde(form=heun)", "spacing": "sgm-uniform"}, ("DPM++ 2M SDE Heun", "SGM Uniform", "2")),
        ({"solver": "repaint(times=3)", "spacing": "karras(rho=5)"}, ("Custom", "Custom", "2")),
        ({"guidance": "cfg(7)"}, ("Euler", "Custom", "7")),
        ({"guidance": "cfg(7)", "cfg_scale": 3.0}, ("Euler", "Custom", "7")),
        ({"guidance": "interval(rescale(cfg(5)), high=8)"}, ("Euler", "Custom", "5")),
        ({"guidance": "interval(rescale, high=8)", "cfg_scale": 4.5}, ("Euler", "Custom", "4.5")),
        ({"guidance": "apg(6)"}, ("Euler", "Custom", "6")),
        ({"guidance": "plain"}, ("Euler", "Custom", "1")),
        ({"guidance": "pag(plain)"}, ("Euler", "Custom", "1")),
        ({"guidance": "cfg++(0.4)"}, ("Euler", "Custom", None)),
    ],
)
def test_settings_arrive_as_they_were_used(how: dict[str, Any], wanted: tuple[Any, ...], engine: Engine) -> None:
    own = record(engine, **how)
    sampler, rest = parsed(to_png(PICTURE, own))
    found = (sampler.name, sampler.parameters["scheduler"], sampler.parameters.get("cfg_scale"))
    assert found == wanted
    assert own.request.scale == (None if wanted[2] is None else float(wanted[2]))
    assert rest["Size"] == "8x8"
    assert rest.get("Eta DDIM") == ("0.5" if "eta" in how.get("solver", "") else None)


def test_a_grid_is_read_as_its_first_picture(engine: Engine) -> None:
    records = [record(engine, steps=steps, solver="euler-a") for steps in (3, 5)]
    axes: Mapping[str, Any] = {"steps": ("3", "5"), "solver": ("euler-a",)}
    data = grid_to_png(Image.new("RGB", (20, 8)), axes, [(records[0], (0, 0, 8, 8)), (records[1], (10, 0, 18, 8))])
    sampler, rest = parsed(data)
    assert (sampler.name, sampler.parameters["steps"]) == ("Euler a", "3")
    assert (rest["X Type"], rest["Y Type"], rest["Y Values"]) == ("Steps", "Sampler", "Euler a")
    text = Image.open(io.BytesIO(data)).text["parameters"]  # type: ignore[attr-defined]
    assert reader.settings(text.splitlines()[-1])["X Values"] == "3, 5"


def test_a_models_name_cannot_speak_of_settings(engine: Engine) -> None:
    model = {"name": 'mine, Steps: 99, "Seed": 5\nSampler: Heun', "sha256": "ab"}
    sampler, _ = parsed(to_png(PICTURE, record(engine)._replace(model=model)))
    assert (sampler.name, sampler.parameters["steps"], sampler.parameters["seed"]) == ("Euler", "4", "7")
    assert sampler.model.name == "mine Steps 99 Seed 5 Sampler Heun"


def test_brackets_that_are_text_and_strength_are_said(engine: Engine) -> None:
    words = "Cocos (Keeling) Islands"
    assert "Emphasis: None" in infotext(record(engine, words), (8, 8))
    assert "Denoising" not in infotext(record(engine, words), (8, 8))
    assert "Emphasis" not in infotext(record(engine, words, weights=True), (8, 8))
    text = infotext(record(engine, words, start="0" * 64, strength=0.35), (8, 8))
    assert "Denoising strength: 0.35" in text
    found = reader.read({"parameters": text})
    assert found is not None
    assert (found.literal, found.strength, found.tool) == (True, 0.35, "unnoise")


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=60),
    scale=st.floats(-100, 100).filter(math.isfinite),
    steps=st.integers(1, 10_000),
)
def test_any_prompt_arrives(engine: Engine, prompt: str, scale: float, steps: int) -> None:
    sampler, _ = parsed(to_png(PICTURE, record(engine, prompt, negative="blue", cfg_scale=scale, steps=steps)))
    said = prompt.replace("Negative prompt:", "Negative prompt :").strip()
    assert [each.value for each in sampler.prompts] == [said] * bool(said)
    assert [each.value for each in sampler.negative_prompts] == ["blue"]
    assert (sampler.parameters["steps"], sampler.parameters["cfg_scale"]) == (str(steps), f"{scale + 0.0:g}"), "-0 is 0"


@pytest.mark.parametrize("kind", ["solvers", "spacings"])
def test_the_table_of_names_holds_in_both_directions(kind: str) -> None:
    table = names.TABLES[kind]
    assert {name.partition("(")[0] for name in table} | set(names.ALONE[kind]) == set(index(kind))
    assert len(set(table.values())) == len(table)
    for ours, label in table.items():
        assert (names.written(kind, ours), names.counterpart(kind, label)) == (label, ours)
    for entry in index(kind).values():
        spellings = [name for name in (entry.name, *entry.aliases) if name != "custom"]
        assert all(names.counterpart(kind, name) == entry.name for name in spellings)
    assert names.counterpart(kind, names.CUSTOM) is None, "one word for all that have no counterpart, and no spacing"


@pytest.mark.parametrize(
    ("spelling", "wanted"),
    [
        ("DPM++ 2M Karras", ("dpmpp-2m", "karras")),
        ("DPM++ 2M SDE Heun Exponential", ("dpmpp-2m-sde(form=heun)", "log-snr")),
        ("DPM2 a Karras", ("dpm-2-a", "karras")),
        ("Euler a", ("euler-a", None)),
        ("euler discrete", ("euler", "linspace")),
        ("sample_dpmpp_2m", ("dpmpp-2m", None)),
        ("dpmpp_2m_sde_gpu", ("dpmpp-2m-sde", None)),
        ("k_euler_ancestral", ("euler-a", None)),
        ("k_dpm_2_a", ("dpm-2-a", None)),
        ("uni_pc_bh2", ("unipc", None)),
        ("SamplerEuler", (None, None)),
        ("DPM fast", (None, None)),
    ],
)
def test_names_as_others_spell_them(spelling: str, wanted: tuple[str | None, str | None]) -> None:
    sampler, schedule = names.parted(spelling)
    assert (names.counterpart("solvers", sampler), schedule and names.counterpart("spacings", schedule)) == wanted


def test_a_method_that_wants_a_setting_has_a_name_too() -> None:
    assert names.written("spacings", "custom(times=[1, 0.5])") == names.CUSTOM
