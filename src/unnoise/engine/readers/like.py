"""Translates the settings in a file into ours: what is taken, what is left out, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from unnoise.engine import names
from unnoise.engine.readers.reading import Reading
from unnoise.engine.request import WEAKEST, Request
from unnoise.text import clean

NOISE = "other tools draw other noise: the same seed gives another picture"


class Like(NamedTuple):
    """The settings to draw like a picture.

    Attributes:
        tool: the tool that made it.
        prompt, negative, seed, strength: None if the file does not have it.
        settings: fields of a ``Request``, those that the file has.
        literal: brackets in the prompt are text.
        left_out: {name: value} of settings in the file that are not used.
        notes: notes for the user, a sentence each.
        weights_sha256: for our own pictures, the hash of the weights that drew them.
        size: (width, height) of the picture; None if it is not known.
    """

    tool: str
    prompt: str | None
    negative: str | None
    seed: int | None
    strength: float | None
    settings: Mapping[str, Any]
    literal: bool
    left_out: Mapping[str, str]
    notes: tuple[str, ...]
    weights_sha256: str | None = None
    size: tuple[int, int] | None = None


def like(reading: Reading, size: tuple[int, int] | None = None) -> Like:
    """The settings of a record that can be used here.

    Args:
        size: (width, height) of the picture to draw, if it is known.
    """
    own = reading.record is not None
    left_out, notes = dict(reading.left_out), list(reading.notes)
    settings: dict[str, Any] = {"steps": reading.steps, "cfg_scale": reading.cfg_scale, "clip_skip": reading.clip_skip}
    if reading.record is not None:
        settings |= {name: reading.record.get(name) for name in own_settings()} | {"size": reading.size}
    else:
        settings |= _methods(reading, left_out)
        if reading.seed is not None:
            notes.append(NOISE)
    if not own and reading.size is not None and reading.size != size:
        here = "the model's" if size is None else f"{size[0]} x {size[1]}"
        left_out["size"] = f"{reading.size[0]} x {reading.size[1]}, here it is {here}"
    strength = reading.strength
    if strength is not None and strength < WEAKEST:
        left_out["strength"], strength = f"{strength:g}", None
    return Like(
        reading.tool,
        reading.prompt if own else in_one_line(reading.prompt),
        reading.negative if own else in_one_line(reading.negative),
        reading.seed,
        strength,
        {name: value for name, value in settings.items() if value is not None},
        reading.literal,
        left_out,
        tuple(notes),
        reading.record.get("model", {}).get("sha256") if reading.record is not None else None,
        reading.size,
    )


def own_settings() -> list[str]:
    """The fields of a request that are followed from record to request as they are: what a grid could vary."""
    apart = "seed", "strength", "size"  # which have a place of their own here
    return [
        name for name, each in Request.__dataclass_fields__.items() if each.metadata.get("axis") and name not in apart
    ]


def _methods(reading: Reading, left_out: dict[str, str]) -> dict[str, Any]:
    """Solver, spacing and guidance from their names in other tools; those without a counterpart are left out."""
    methods: dict[str, Any] = {}
    sampler, schedule = names.parted(reading.sampler or "")
    schedule = reading.schedule or schedule
    if key := names.key(sampler):
        plus = "cfgpp" in key  # "euler_cfg_pp", "DDIM CFG++": a sampler that brings its guidance along
        methods["solver"] = names.counterpart("solvers", key.replace("cfgpp", "") if plus else sampler)
        if plus and methods["solver"] and reading.cfg_scale is not None and 0 <= reading.cfg_scale <= 1:
            methods["guidance"] = f"cfg++({reading.cfg_scale:g})"
        elif plus:
            left_out["sampler"] = f"{sampler} with {reading.cfg_scale}, which CFG++ here does not take"
    if reading.eta is not None and methods.get("solver") and "(" not in methods["solver"]:
        methods["solver"] = _with_eta(methods["solver"], reading.eta, left_out)
    if sampler and not methods.get("solver"):
        left_out["sampler"] = f"{sampler}, which has no counterpart here"
    if schedule is not None and names.key(schedule) not in names.DEFAULTS:
        methods["spacing"] = names.counterpart("spacings", schedule)
        if not methods["spacing"]:
            left_out["schedule"] = f"{schedule}, which has no counterpart here"
    return methods


def _with_eta(solver: str, eta: float, left_out: dict[str, str]) -> str:
    """The solver with this eta, if it has one and accepts this value."""
    import inspect

    from unnoise.core.notation import make
    from unnoise.core.registry import find
    from unnoise.errors import UnnoiseError

    if "eta" not in inspect.signature(find("solvers", solver)).parameters:
        return solver  # tools write an eta beside samplers that have none
    try:
        make("solvers", f"{solver}(eta={eta:g})")
    except UnnoiseError:
        left_out["Eta"] = f"{eta:g}"
        return solver
    return f"{solver}(eta={eta:g})"


def in_one_line(text: str | None) -> str | None:
    """A prompt cleaned as prompts are here; lone surrogates and NULs are replaced, not refused."""
    return (
        None if text is None else clean(re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text).replace("\0", " "))
    )
