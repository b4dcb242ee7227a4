"""A request is data: checked when it is made, the same after JSON, and read from earlier formats."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from unnoise.engine.request import FORMAT, RULES, Request
from unnoise.engine.settings import size_of
from unnoise.errors import UnnoiseError
from unnoise.guidances.cfg import CFG
from unnoise.guidances.interval import Interval
from unnoise.study.switched import Instead

HASH = "0" * 64
REQUESTS = [
    Request("red apple"),
    Request("", negative="dog", seed=2**63 - 1, size=(160, 96), steps=10_000, noise="torch", weights=True),
    Request("a", solver="ddim(eta=0.5)", spacing="shifted(3)", guidance="interval(rescale, high=8)", cfg_scale=2.35),
    Request("a", guidance=Interval(CFG(5.0), high=8.0), read=("mid.0.cross", "up.0")),
    Request("a", start=HASH, mask=HASH, invert="b"),
    Request("a", start=HASH, strength=0.3),
    Request("a", start=HASH, outpaint="right=64,top=32", rules=1),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
def test_json_gives_the_same_request(request_: Request) -> None:
    text = json.dumps(request_.to_json())
    assert Request.from_json(json.loads(text)) == request_
    assert json.loads(text)["format"] == FORMAT
    assert hash(request_) == hash(Request.from_json(json.loads(text)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        request_.prompt = "b"  # type: ignore[misc]


def test_the_guidance_owns_the_scale() -> None:
    assert Request("a", cfg_scale=3).guidance == "cfg(3)"
    assert Request("a", guidance="interval(rescale, high=8)", cfg_scale=2.5).guidance == (
        "interval(rescale(cfg(2.5)), high=8)"
    )
    kept = Request("a", guidance="cfg(7)", cfg_scale=2)
    assert (kept.guidance, kept.scale, kept.way) == ("cfg(7)", 7, "cfg")
    assert Request("a", guidance="plain", cfg_scale=2).scale == 1
    assert Request("a", guidance=CFG(4.0)).guidance == "cfg(scale=4)"
    assert "cfg_scale" not in Request("a", cfg_scale=3).to_json()
    assert Request("a", guidance="interval(apg, high=3)", cfg_scale=6).way == "interval(apg, high=3)"


def test_a_guidance_without_a_name_is_drawn_with_and_not_written_down() -> None:
    guidance = Instead(CFG(2.0), None)  # type: ignore[arg-type]
    request = Request("a", guidance=guidance)
    assert request.steer() is guidance
    with pytest.raises(UnnoiseError, match="cannot be written down"):
        request.to_json()


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("prompt", None, "prompt"), ("negative", 3, "negative"), ("seed", -1, "seed"), ("seed", 1.0, "seed"),
        ("size", (0, 8), "size"), ("size", "8y8", "size"), ("size", (8, 8, 8), "size"), ("size", "9999x8", "size"),
        ("steps", 0, "steps"), ("solver", "eulr", "euler"), ("spacing", 3, "spacing"), ("guidance", "cfg(", "guidance"),
        ("cfg_scale", 101, "cfg_scale"), ("noise", "white", "noise"), ("weights", "yes", "weights"),
        ("start", "a.png", "start"), ("strength", 0.5, "strength"), ("mask", HASH, "mask"), ("invert", "b", "invert"),
        ("outpaint", "64", "outpaint"), ("read", "mid.0", "read"), ("adapters", ("style",), "adapters"),
        ("rules", RULES + 1, "rules"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_named(field: str, value: Any, name: str) -> None:
    with pytest.raises(UnnoiseError) as caught:
        Request(**{"prompt": "a", field: value})
    assert name in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(("field", "value"), [("strength", 0.5), ("mask", HASH), ("invert", "b")])
def test_a_picture_that_grows_has_no(field: str, value: Any) -> None:
    with pytest.raises(UnnoiseError, match=f"{field} and outpaint"):
        Request("a", start=HASH, outpaint="64", **{field: value})


def test_sizes_are_width_first() -> None:
    assert size_of("160x96") == (160, 96)
    assert size_of(" 160 × 96 ") == (160, 96)
    assert size_of("128") == size_of(128) == size_of([128, 128]) == (128, 128)


# earlier formats

OLD: dict[str, Any] = {
    "format": 2, "prompt": "red apple", "negative": "", "seed": 7, "row": 0, "batch": 1, "steps": 10, "cfg_scale": 2.0,
    "solver": "euler", "spacing": "trailing", "guidance": "cfg", "noise": "independent", "weights": True,
    "size": [128, 128], "model": {"name": "m", "sha256": HASH}, "made_by": {},
}  # fmt: skip


def test_earlier_formats_are_read() -> None:
    new = Request.from_json(OLD)
    assert (new.guidance, new.rules, new.weights, new.size) == ("cfg(2)", 2, True, (128, 128))
    first = {name: value for name, value in OLD.items() if name != "weights"} | {"format": 1}
    assert (Request.from_json(first).rules, Request.from_json(first).weights) == (1, False)
    plain = Request.from_json(OLD | {"guidance": "plain", "cfg_scale": None})
    assert plain.guidance == "plain"
    start = {"strength": 0.6, "invert": None, "mask": HASH, "sha256": "1" * 64}
    assert (found := Request.from_json(OLD | {"start": start})).start == "1" * 64
    assert (found.strength, found.mask, found.invert) == (0.6, HASH, None)
    grown = {"outpaint": {"left": 0, "top": 32, "right": 64, "bottom": 0}, "invert": None, "mask": None, "sha256": HASH}
    found = Request.from_json(OLD | {"start": grown, "size": [192, 160]})
    assert (found.size, found.outpaint) == ((128, 128), "top=32,right=64")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 0}, {"format": "2"}, {"format": True}, {"guidance": 3}, {"guidance": ["cfg"]}, {"cfg_scale": "2"},
        {"start": 3}, {"start": {}}, {"start": {"sha256": 3, "strength": 1}}, {"weights": "yes"}, {"size": "large!"},
        {"start": {"sha256": HASH, "outpaint": {"up": 3}}, "size": [128, 128]}, {"steps": "many"}, {"warmth": 3},
    ],
    ids=str,
)  # fmt: skip
def test_what_was_tampered_with_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UnnoiseError):
        Request.from_json(OLD | change)


@pytest.mark.parametrize("values", [None, [], "text", {}, {"format": FORMAT}, {"format": FORMAT, "seed": 1}])
def test_what_is_no_request_is_refused(values: Any) -> None:
    with pytest.raises(UnnoiseError):
        Request.from_json(values)


def test_a_newer_format_says_so() -> None:
    with pytest.raises(UnnoiseError, match="newer unnoise"):
        Request.from_json({"format": FORMAT + 1, "prompt": "a"})
