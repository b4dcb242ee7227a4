"""A request: frozen data that describes one picture.

Its JSON is the record in a picture, what `replay` reads, a cell of a grid, and what a caller sends. A setting is added
here and nowhere else: the option of the command line, the axis of a grid, the record and its replay follow from the
field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from unnoise.core import checks
from unnoise.engine.settings import option, scaled, size_of
from unnoise.errors import UnnoiseError

if TYPE_CHECKING:
    from unnoise.core.guidance import Guidance
    from unnoise.core.solver import Solver
    from unnoise.core.spacing import Spacing
    from unnoise.engine.outpaint import Margins

FORMAT = 3  # of the JSON; ``older`` reads earlier ones
RULES = 3  # the version of how a request becomes a picture; a record keeps the one that it was drawn by
WEAKEST, USUAL = 0.02, 0.6  # strengths: the least, and that of a whole picture
WHERE = {"row", "batch", "shared", "model", "made_by"}  # what a record has besides: where and by what it was drawn
HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Request:
    """What one picture is to be.

    Attributes:
        prompt: what to draw.
        negative: what to steer away from.
        seed: of its noise, 0 to 2^63 - 1.
        size: (width, height) in pixels; None is the model's own.
        steps: solver steps, 1 to 10,000.
        solver, spacing: methods of the registry, as ``core.notation`` reads them: "heun", "ddim(eta=0.5)".
        guidance: how to steer, in the same notation; it owns the scale. A ``Guidance`` will do too, in Python alone.
        noise: of solvers that draw it: anew for each step, or along one Brownian path, which more steps refine; or as
            torch's own generator draws it, as other tools have it.
        weights: whether brackets in prompts weigh words, as ``engine.emphasis`` describes; else they are text.
        clip_skip: the text towers' layer, counted from the end: 1 is the last, 2 the one before; None the model's own.
        start: what identifies the picture that the run starts from; None starts from noise.
        strength: how much of the way to noise the start is taken, 0.02 to 1; 0.6 if left out, 1 with a mask or invert.
        mask: what identifies the mask of what is drawn anew.
        invert: what the start shows, in words: it is led back to its noise.
        outpaint: how far the start grows beyond its borders, as ``outpaint.margins`` reads it.
        read: names of sites in the network whose values come back with each step.
        adapters: what is added to the networks; there are none yet.
        rules: the version of the drawing rules, 1 to ``RULES``; an older one draws as unnoise did then, for `replay`.
        cfg_scale: taken when a request is made, and kept in ``guidance``: the scale wherever that gives none.

    Raises:
        UnnoiseError: a field that cannot be drawn, by its name.
    """

    prompt: str
    negative: str = field(default="", metadata=option("what to steer away from.", axis=False))
    seed: int = field(
        default=0,
        metadata=option("the same seed and settings give the same picture; chosen and printed if left out."),
    )
    size: tuple[int, int] | None = field(
        default=None,
        metadata=option(
            "width and height in pixels, such as 160x96; the model's own if left out.", kind=str, metavar="WxH"
        ),
    )
    steps: int = field(
        default=30, metadata=option("solver steps; more is finer and slower. The model's default if left out.")
    )
    cfg_scale: InitVar[float | None] = field(
        default=None,
        metadata=option(
            "how hard to steer by the prompt: 0 ignores it, 1 is plain, from about 7 on it fries the picture.",
            kind=float,
        ),
    )
    solver: str = field(
        default="dpmpp-2m",
        metadata=option(
            'the rule of one step, with settings in brackets: "ddim(eta=0.5)"; see `unnoise list solvers`.'
        ),
    )
    spacing: str = field(
        default="trailing",
        metadata=option('which noise levels are visited, such as karras or "shifted(3)"; see `unnoise list spacings`.'),
    )
    guidance: str | Guidance = field(
        default="cfg",
        metadata=option('how to steer, such as "interval(rescale, high=8)"; see `unnoise list guidances`.', kind=str),
    )
    noise: Literal["independent", "brownian", "torch"] = field(
        default="independent",
        metadata=option(
            "of solvers that draw it: anew for each step, or along one Brownian path, which more steps refine; torch "
            "draws the noise of torch's own generator, as diffusers does; ComfyUI starts from the same.",
            kind=Literal["independent", "brownian", "torch"],
        ),
    )
    weights: bool = False
    clip_skip: int | None = field(
        default=None,
        metadata=option(
            "the layer of CLIP that is read: 1 is the last, 2 the one before; the model's own if left out.", kind=int
        ),
    )
    start: str | None = field(
        default=None, metadata=option("a picture to start from in place of noise.", axis=False, picture=True)
    )
    strength: float | None = field(
        default=None,
        metadata=option(
            "how much of the way to noise it is taken, 0.02 to 1; 0.6 if left out, 1 with a mask or --invert.",
            kind=float,
        ),
    )
    mask: str | None = field(
        default=None,
        metadata=option(
            "a picture as large as the start: what is white, or painted on clear, is drawn anew; the rest stays.",
            axis=False,
            picture=True,
        ),
    )
    invert: str | None = field(
        default=None,
        metadata=option(
            "what the start shows, in words: it is led back to its noise, and drawn from there with the prompt.",
            kind=str,
            axis=False,
        ),
    )
    outpaint: str | None = field(
        default=None,
        metadata=option(
            'grow the start beyond its borders: "64" pixels a side, or "right=64,top=32".', kind=str, axis=False
        ),
    )
    read: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    rules: int = RULES

    def __post_init__(self, cfg_scale: float | None) -> None:
        for name, value in self._checked(cfg_scale).items():
            object.__setattr__(self, name, value)
        self.method()
        self.levels_of()
        self.steer()

    def _checked(self, cfg_scale: float | None) -> dict[str, Any]:
        """The fields as plain values."""
        kinds = "independent", "brownian", "torch"
        read = checks.several("read", self.read, checks.text, least=0) if self.read != () else ()
        if self.adapters != ():
            raise UnnoiseError(
                "adapters cannot be drawn with yet", "leave them out; `unnoise inspect` describes a file"
            )
        return {
            "prompt": checks.text("prompt", self.prompt),
            "negative": checks.text("negative", self.negative),
            "seed": checks.seed("seed", self.seed),
            "size": None if self.size is None else size_of(self.size),
            "steps": checks.whole("steps", self.steps, 1, 10_000),
            "solver": checks.text("solver", self.solver),
            "spacing": checks.text("spacing", self.spacing),
            "guidance": self._guided(cfg_scale),
            "noise": checks.choice("noise", self.noise, *kinds),
            "weights": checks.flag("weights", self.weights),
            "clip_skip": None if self.clip_skip is None else checks.whole("clip_skip", self.clip_skip, 1, 100),
            "read": tuple(read),
            "rules": checks.whole("rules", self.rules, 1, RULES),
            **self._start(),
        }

    def _guided(self, cfg_scale: float | None) -> str | Guidance:
        """The guidance with the scale in it, wherever none was written."""
        from unnoise.core.guidance import Guidance
        from unnoise.core.notation import complete, write

        scale = None if cfg_scale is None else checks.number("cfg_scale", cfg_scale, -100, 100)
        if isinstance(self.guidance, Guidance):
            try:
                return write(self.guidance)
            except UnnoiseError:  # one that has no name, such as a study's: it is drawn with, and cannot be written
                return self.guidance
        text = checks.text("guidance", self.guidance, 'write it like "cfg(3)", or give a Guidance')
        return text if scale is None else complete("guidances", text, scaled(scale))

    def _start(self) -> dict[str, Any]:
        """The fields that need a picture to start from."""
        own = {name: getattr(self, name) for name in ("strength", "mask", "invert", "outpaint")}
        if self.start is None:
            for name in (name for name, value in own.items() if value is not None):
                raise UnnoiseError(f"{name} speaks of a picture to start from", "give one as start")
            return own
        for name in ("start", "mask"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and HASH.fullmatch(value)):
                raise UnnoiseError(
                    f"{name} is {checks.description(value)}, which identifies no picture", "give its SHA-256"
                )
        if self.outpaint is not None:
            from unnoise.engine.outpaint import margins, written

            for name in ("strength", "mask", "invert"):
                if own[name] is not None:
                    raise UnnoiseError(f"{name} and outpaint do not go together", "leave one of them out")
            return own | {"outpaint": written(margins(self.outpaint))}
        usual = USUAL if self.mask is None and self.invert is None else 1.0
        strength = checks.number("strength", usual if self.strength is None else self.strength, WEAKEST, 1)
        invert = None if self.invert is None else checks.text("invert", self.invert)
        return own | {"strength": strength, "invert": invert}

    @property
    def scale(self) -> float | None:
        """The scale of CFG that the picture is drawn with; None for a guidance that has none."""
        from unnoise.guidances.plain import Plain

        steer = self.steer()
        while (inner := getattr(steer, "inner", None)) is not None:
            steer = inner
        return 1.0 if isinstance(steer, Plain) else getattr(steer, "scale", None)

    @property
    def way(self) -> str:
        """The guidance without its scale."""
        from unnoise.core.notation import shortened

        if not isinstance(self.guidance, str):
            return type(self.guidance).__name__
        return self.guidance if self.scale is None else shortened("guidances", self.guidance, scaled(self.scale))

    @property
    def margins(self) -> Margins | None:
        """The margins that the start grows by; None for a picture of the request's own size."""
        from unnoise.engine.outpaint import margins

        return None if self.outpaint is None else margins(self.outpaint)

    def method(self) -> Solver:
        """The solver, made anew. By the first rules none was ``steady`` unless it was asked to be."""
        from unnoise.core.notation import make

        solver: Solver = make("solvers", self.solver, {"steady": self.rules >= 2})
        return solver

    def levels_of(self) -> Spacing:
        """The spacing, made anew."""
        from unnoise.core.notation import make

        spacing: Spacing = make("spacings", self.spacing)
        return spacing

    def steer(self) -> Guidance:
        """The guidance, made anew."""
        from unnoise.core.notation import make

        if not isinstance(self.guidance, str):
            return self.guidance
        guidance: Guidance = make("guidances", self.guidance)
        return guidance

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``from_json`` makes the same request of them. Fields that are None or empty are left out.

        Raises:
            UnnoiseError: the guidance is an object, for which there is no notation.
        """
        if not isinstance(self.guidance, str):
            raise UnnoiseError(f"guidance {self.guidance!r} cannot be written down", 'give it as text: "cfg(3)"')
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"format": FORMAT, **{name: value for name, value in plain.items() if value not in (None, [])}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str = "the request") -> Request:
        """The request that plain values describe, of any format so far; other entries of a record are ignored.

        Raises:
            UnnoiseError: they are of a newer format or no request, or a field cannot be drawn.
        """
        from unnoise.engine.older import upgraded

        values = upgraded(values, where)
        names = {each.name for each in fields(cls)}
        unknown = sorted(values.keys() - names - WHERE - {"format"})
        if unknown:
            raise UnnoiseError(f"{where} has the unknown field {unknown[0][:40]!r}", "update unnoise")
        if "prompt" not in values:
            raise UnnoiseError(f"{where} has no prompt", "it is damaged, or no request of unnoise")
        own: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items() if n in names}
        if own.get("weights", False) not in (True, False) or not isinstance(own.get("guidance", ""), str):
            raise UnnoiseError(f"{where} has fields of the wrong kind", "it is damaged, or no request of unnoise")
        return cls(**own)
