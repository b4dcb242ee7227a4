"""``unnoise generate --like``: settings from a picture or a file of settings, ours or another tool's."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.cli.options import request_fields
from unnoise.errors import UnnoiseError, one_line

if TYPE_CHECKING:
    from unnoise.engine.engine import Engine
    from unnoise.engine.readers.like import Like
    from unnoise.engine.readers.reading import Reading
    from unnoise.engine.request import Request

SHOWN, LISTED = 60, 16  # characters of a value, and how many of what is left out are printed


@dataclass
class Example:
    """A file whose settings a call follows, and which of them it uses."""

    path: Path
    like: Like
    values: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    sized: bool = False  # whether a size was given, or varies

    @classmethod
    def read(cls, path: Path) -> Example:
        """The settings in the file, translated.

        Raises:
            UnnoiseError: it cannot be read, or has no record of how it was made.
        """
        from unnoise.engine.readers.like import like
        from unnoise.engine.readers.read import read_settings

        reading = read_settings(path)
        if reading is None:
            raise UnnoiseError(
                f"{path} does not say how it was made",
                "name a picture whose tool writes its settings, in texts of up to 8 MiB, or a JSON file of settings",
            )
        translated = like(reading)
        return cls(path, translated, left_out=dict(translated.left_out))

    def take(self, options: Mapping[str, Any], varied: Sequence[str], start: bool) -> dict[str, Any]:
        """{field: value} of the settings in the file that no option gives and no grid varies.

        Args:
            options: {field of a request: its value, or None}.
            varied: fields that a grid varies.
            start: whether there is a picture to start from, which a strength belongs to.

        Raises:
            UnnoiseError: neither the file nor an option has a prompt.
        """
        like = self.like
        self.sized = options.get("size") is not None or "size" in varied
        offers = {"prompt": like.prompt, "negative": like.negative, "seed": like.seed, "strength": like.strength}
        offers |= like.settings
        self.values = {
            name: value
            for name, value in offers.items()
            if value is not None and options.get(name) is None and name not in varied
        }
        if not start and "strength" in self.values:
            strength = self.values.pop("strength")
            if strength < 1:
                self.left_out["strength"] = f"{strength:g}, of a start picture"
        if options.get("prompt") is None and "prompt" not in self.values:
            from unnoise.engine.readers.like import NOISE

            why = "".join(f"; {note}" for note in like.notes[:1] if note != NOISE)
            raise UnnoiseError(f"{self.path} names no single prompt{why}", "give one of your own before --like")
        return self.values

    def literal(self, option: bool) -> bool:
        """Whether brackets are text: by the option, or by the file where the prompt comes from it."""
        return option or (self.like.literal and "prompt" in self.values)

    def fit(self, engine: Engine, negative: str, weights: bool) -> dict[str, Any]:
        """{field: value} of what only the model decides: what is drawn with in place of the file's settings that it has
        no use for, and the file's size where the model draws at any.

        No use has it for a negative prompt that is longer than it reads, and a layer of CLIP of another text tower.

        Raises:
            UnnoiseError: the prompt is the file's, and too long.
        """
        from unnoise.engine.metadata import weights_sha256

        instead: dict[str, Any] = {"negative": negative}
        if self.like.weights_sha256 not in (None, weights_sha256(engine.model.record)):
            self.left_out["model"] = "other weights; name theirs with --model"
        for name in ("prompt", "negative"):
            try:
                engine.model.conditioner.read(self.values.get(name, ""), weights)
            except UnnoiseError as error:
                if name == "prompt":
                    what = error.what.replace("the prompt", f"the prompt of {self.path}", 1)
                    raise UnnoiseError(what, "give a shorter one of your own before --like") from None
                self.left_out[name] = error.what.replace("the prompt has ", "", 1)
                del self.values[name]
                instead[name] = ""
        if self.like.size is not None and "size" in self.left_out and not self.sized and self._takes(engine):
            self.values["size"] = instead["size"] = self.like.size
            del self.left_out["size"]
        clip = any(tower.tokenizer.kind == "clip" for tower in engine.model.conditioner.towers.values())
        if "clip_skip" in self.values and not clip and self.like.weights_sha256 is None:
            self.left_out["Clip skip"] = str(self.values.pop("clip_skip"))
            instead["clip_skip"] = None
        return instead

    def _takes(self, engine: Engine) -> bool:
        """Whether the model is one that draws at the file's size: published models draw at many, ours at one."""
        try:
            engine.model.shape(engine.request("", size=self.like.size))
        except UnnoiseError:
            return False
        return "family" in engine.model.record

    def report(self, request: Request, cfg_scale: float | None) -> list[str]:
        """The lines on the picture's tool, the settings from it and those left out.

        Args:
            request: the first to be drawn.
            cfg_scale: the option, if it was given.

        Raises:
            UnnoiseError: the option has no effect, since the file's guidance has a scale of its own.
        """
        if cfg_scale is not None and "guidance" in self.values and request.scale != cfg_scale:
            what = f"--cfg-scale {cfg_scale:g} does not reach the guidance {self.values['guidance']} of {self.path}"
            raise UnnoiseError(what, "give --guidance too")
        instead = {"sampler": ("solver", request.solver), "schedule": ("spacing", request.spacing)}
        place = {name: value for old, (name, value) in instead.items() if old in self.left_out}
        few = dict(list(self.left_out.items())[:LISTED])
        more = f", and {len(self.left_out) - LISTED} more" if len(self.left_out) > LISTED else ""
        lines = [f"{self.path}: made by {self.like.tool}", "  taken: " + (listed(self.values) or "nothing")]
        lines += [f"  left out: {listed(few)}{more}"] if few else []
        lines += [f"  in their place: {listed(place)}"] if place else []
        return [safe(line) for line in [*lines, *(f"  {note}" for note in self.like.notes)]]

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {"tool": self.like.tool, "taken": self.values, "left_out": self.left_out, "notes": list(self.like.notes)}


def listed(values: Mapping[str, Any]) -> str:
    """Names and short values between commas; empty values are left out, and prompts stand in quotes."""
    texts = {name: written(value) for name, value in values.items()}
    return ", ".join(
        f'{label(name)} "{short(text)}"' if name in ("prompt", "negative") else f"{label(name)} {short(text)}"
        for name, text in texts.items()
        if text
    )


def label(name: str) -> str:
    """A field of a request, as its option is written, or a name in a file."""
    return short(name.replace("_", "-") if name in request_fields() else name)


def written(value: Any) -> str:
    """A value in a line of settings."""
    if isinstance(value, float):
        return f"{value:g}"
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def short(text: str) -> str:
    """A value in one line and a few words."""
    text = one_line(text)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 4]} ..."


def safe(line: str) -> str:
    """A line that cannot command a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in line)


def summary(reading: Reading) -> str:
    """How a picture was made, in a few words."""
    named = {
        "prompt": reading.prompt,
        "negative": reading.negative or None,
        "steps": reading.steps,
        "sampler": reading.sampler,
        "schedule": reading.schedule,
        "cfg scale": reading.cfg_scale,
        "seed": reading.seed,
    }
    return listed({name: value for name, value in named.items() if value is not None})


def foreign(path: Path) -> UnnoiseError | None:
    """The error on replaying another tool's picture, with the command that draws one like it; None for any other."""
    from unnoise.engine.readers.read import read_settings

    try:
        reading = read_settings(path)
    except UnnoiseError:
        return None
    if reading is None or reading.tool == "unnoise":
        return None
    prompt, words = "" if reading.prompt is not None else "PROMPT ", summary(reading) or "nothing that is known here"
    return UnnoiseError(
        f"{path} was made by {reading.tool}, and its own model and noise are not here; it says {words}",
        f"draw like it: unnoise generate {prompt}--like {shlex.quote(str(path))}",
    )
