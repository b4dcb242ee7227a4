"""The notation: what is typed is what is made, and what cannot be made says why."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unnoise.core.guidance import Guidance
from unnoise.core.notation import make
from unnoise.core.registry import KINDS, index
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG
from unnoise.guidances.interval import Interval
from unnoise.guidances.rescale import Rescale
from unnoise.solvers.ddim import DDIM
from unnoise.solvers.ddpm import DDPM
from unnoise.spacings.karras import Karras
from unnoise.spacings.shifted import Shifted


def test_plain_names_and_aliases() -> None:
    for kind in ("solvers", "spacings", "guidances"):
        for name, entry in index(kind).items():
            for each in (name, *entry.aliases):
                if name in ("custom", "autoguidance"):  # have a setting that must be given
                    continue
                assert make(kind, each).name == name
                assert make(kind, f" {each}( ) ").name == name


def test_settings_by_place_and_by_name() -> None:
    assert make("solvers", "ddim(0.5)").eta == 0.5
    assert make("solvers", "ddim(eta = .5)").eta == 0.5
    assert make("solvers", "ddpm(large)").variance == "large"
    assert make("solvers", 'ddpm(variance="large")').variance == "large"
    assert make("guidances", "interval(high=inf, low=1e-1)").high == math.inf
    shifted = make("spacings", "shifted(2, karras)")
    assert isinstance(shifted, Shifted)
    assert isinstance(shifted.inner, Karras)
    assert shifted.shift == 2


def test_methods_inside_methods() -> None:
    outer = make("guidances", "interval(rescale(cfg(5), amount=0.4), high=8)")
    assert isinstance(outer, Interval)
    assert isinstance(outer.inner, Rescale)
    assert isinstance(outer.inner.inner, CFG)
    assert (outer.high, outer.inner.amount, outer.inner.inner.scale) == (8, 0.4, 5)


def test_defaults_reach_every_level_and_give_way() -> None:
    defaults = {"scale": 7.0, "inner": CFG(7.0)}
    assert make("guidances", "cfg", defaults).scale == 7
    assert make("guidances", "interval(rescale, high=8)", defaults).inner.inner.scale == 7
    assert make("guidances", "interval(cfg(2))", defaults).inner.scale == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dimm", "did you mean"),
        ("ddim(eat=1)", "no setting 'eat'; it has eta"),
        ("ddim(0, 1)", "only eta"),
        ("ddim(0, eta=1)", "has eta twice"),
        ("ddim(eta=2)", "eta"),
        ("ddim(eta=much)", "ddim: eta is 'much', which is no number"),
        ("ddim(eta=0.5", "not closed"),
        ("ddim(eta=0.5))", "too much"),
        ("ddim(eta=)", "value is missing"),
        ("ddim(eta=[1, 2)", "not closed"),
        ('ddim("', "quotation mark"),
        ("(ddim)", "name is missing"),
        ("", "name is missing"),
        ("x" * 1001, "too long"),
        ("os.system(1)", "no solver is called"),
        ("__import__(os)", "no solver is called"),
    ],
)
def test_mistakes_are_told(text: str, said: str) -> None:
    with pytest.raises(UnnoiseError) as caught:
        make("solvers", text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_depth_is_limited() -> None:
    with pytest.raises(UnnoiseError, match="deep"):
        make("guidances", "interval(" * 20 + "cfg" + ")" * 20)


@given(st.text(max_size=60) | st.from_regex(r"(interval|cfg|rescale|[(),=\[\]\" 0-9.e-]){0,12}", fullmatch=True))
def test_any_text_is_a_guidance_or_a_mistake(text: str) -> None:
    try:
        made = make("guidances", text)
    except UnnoiseError:
        return
    assert isinstance(made, Guidance)


def test_kinds_are_the_registry_s() -> None:
    assert {"solvers", "spacings", "guidances"} <= set(KINDS)
    assert isinstance(make("solvers", "ddim"), DDIM)
    assert isinstance(make("solvers", "ddpm"), DDPM)
