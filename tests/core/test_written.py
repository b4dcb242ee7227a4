"""Methods as text: what ``write`` writes, ``make`` makes again, settings and all; what has no words is refused."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from laws.paths import TIMES
from laws.predictions import LEVELS
from unnoise.core import notation
from unnoise.core.notation import make, write
from unnoise.core.path import Path
from unnoise.core.prediction import Prediction
from unnoise.core.registry import find, index
from unnoise.errors import UnnoiseError
from unnoise.paths.vp import VP
from unnoise.predictions.edm import EDM

CALIBRATION = [(kind, name) for kind in ("paths", "predictions") for name in index(kind)]
INNER = {"zero-snr": "cosine(cap=0.98)"}  # for settings that are methods


def unusual(kind: str, name: str) -> Any:
    """The method with every setting other than its default."""
    cls, settings = find(kind, name), {}
    for key, parameter in inspect.signature(cls).parameters.items():
        default = parameter.default
        inner = make(kind, INNER[name]) if name in INNER else None
        settings[key] = default - 7 if type(default) is int else 0.9 * default if type(default) is float else inner
        assert settings[key] is not None, f"say above what {key} of {name} may be"
    return cls(**settings)


def facts(method: Path | Prediction) -> list[Any]:
    """All that a calibration is asked for."""
    if isinstance(method, Path):
        return [method.t_min, method.num_levels, *(method.at(t) for t in (0.0, *TIMES))]
    return [(method.target(level), method.scale_in(level)) for level in LEVELS]


def comes_back(kind: str, name: str) -> None:
    """The usual and the unusual one are made again from their text, to the bit, and are not one another."""
    usual, other = find(kind, name)(), unusual(kind, name)
    again = make(kind, write(other))
    assert type(again) is type(other)
    assert facts(again) == facts(other)
    assert write(again) == write(other)
    assert facts(make(kind, write(usual))) == facts(usual)
    if inspect.signature(type(usual)).parameters:
        assert facts(other) != facts(usual)


@pytest.mark.parametrize(("kind", "name"), CALIBRATION)
def test_paths_and_predictions_come_back_from_their_text(kind: str, name: str) -> None:
    comes_back(kind, name)


@pytest.mark.parametrize(("kind", "name"), [("paths", "vp"), ("paths", "zero-snr"), ("predictions", "edm")])
def test_a_writer_that_drops_settings_is_seen(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notation, "_same", lambda value, default: True)
    with pytest.raises(AssertionError):
        comes_back(kind, name)


@pytest.mark.parametrize("text", [
    "vp", "vp(beta_max=30)", "ve(sigma_min=0.0002, sigma_max=160.5)", "cosine(offset=1e-05)",
    "zero-snr(inner=cosine(num_levels=500))", "edm(sigma_data=0.7)",
])  # fmt: skip
def test_text_is_as_a_person_would_type_it(text: str) -> None:
    kind = "predictions" if text.startswith("edm") else "paths"
    assert write(make(kind, text)) == text


@pytest.mark.parametrize(("kind", "text"), [
    ("guidances", "interval(inner=rescale(inner=cfg(scale=5), amount=0.4), high=8)"),
    ("guidances", "apg(scale=7, cap=2.5)"),
    ("spacings", "curve(times=[1, 0.5, 0.25])"),
    ("solvers", "ddim(eta=0.5)"),
    ("solvers", "dpmpp-2m(steady=false)"),
    ("solvers", "ddpm(variance=large)"),
    ("spacings", "karras(sigma_max=20)"),
])  # fmt: skip
def test_other_methods_are_written_too(kind: str, text: str) -> None:
    assert write(make(kind, text)) == text


class Own(VP):
    """Registered nowhere."""


class Hidden(VP):
    """Does not keep what it was made with."""

    kind, name = "paths", "hidden"

    def __init__(self, secret: float = 1.0) -> None:
        super().__init__(beta_max=20 + secret)


def test_what_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnnoiseError, match="Own is not registered"):
        write(Own())
    monkeypatch.setattr(notation, "find", lambda kind, name: Hidden)
    with pytest.raises(UnnoiseError, match="hidden does not keep its setting secret"):
        write(Hidden(2.0))


def test_settings_without_words_are_refused() -> None:
    prediction = EDM()
    for value in (float("nan"), object(), 'a "word"'):
        prediction.sigma_data = value  # type: ignore[assignment]
        with pytest.raises(UnnoiseError, match=r"edm: sigma_data is .* cannot be written"):
            write(prediction)
    curve = find("spacings", "curve")([1.0, *(1 - (i + 1) / 700 for i in range(400))])
    with pytest.raises(UnnoiseError, match="characters"):
        write(curve)
