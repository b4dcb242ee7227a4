"""Published models that are drawn with: family, variant, prediction, layout, what is in them and what is missing.

By headers alone and without torch, from the same survey that loads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.errors import UnnoiseError
from unnoise.inspection.answer import Answer, names
from unnoise.weights.families.family import DENOISER, families
from unnoise.weights.header import Header
from unnoise.weights.kinds import QUANTISED
from unnoise.weights.lookup import parts_for
from unnoise.weights.roles import CHECKPOINT, role
from unnoise.weights.roles import DENOISER as ALONE
from unnoise.weights.shapes import FLOATS
from unnoise.weights.sources import variant_of
from unnoise.weights.survey import Survey, survey

MAX_UNKNOWN = 1000  # names that match nothing, which --json lists
TRIAL = "not in the file: decided by a trial when it is loaded"
WHOLE = (*FLOATS.values(), "F64", "I64", "I32", "U8", "BOOL")  # types that are no quantisation


class Published(NamedTuple):
    """A published model, in the names that ``--json`` uses.

    Attributes:
        family, title: "sd1", "Stable Diffusion 1".
        variants: of "inpainting", "LCM", "v", "zero-terminal-SNR".
        prediction: "noise", "v" or "data"; None where only a trial tells, or nothing is known.
        evidence: what tells it.
        layout: how its files are laid out, in words.
        quantisation: in words; "none".
        parts: those that are in it.
        missing: those that a family's model has and this one lacks.
        needs: what a person must add to draw with it: options of ``generate``.
        listed: {missing part: file of the list of models from which it is taken}.
        matched, total: tensors that belong to its parts, and all.
        unmatched: names of those that nothing knows.
        faults: why nothing can be drawn with it, a line each, besides missing parts.
    """

    family: str
    title: str
    variants: tuple[str, ...]
    prediction: str | None
    evidence: str
    layout: str
    quantisation: str
    parts: tuple[str, ...]
    missing: tuple[str, ...]
    needs: tuple[str, ...]
    listed: Mapping[str, str]
    matched: int
    total: int
    unmatched: tuple[str, ...]
    faults: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """The same for people."""
        facts: dict[str, Any] = {
            "family": f"{self.family}: {self.title}",
            "variant": ", ".join(self.variants) or "plain",
            "prediction": self.evidence if self.prediction is None else f"{self.prediction} ({self.evidence})",
            "layout": self.layout,
            "quantisation": self.quantisation,
            "parts": ", ".join(self.parts) or "none that is whole",
            "missing": ", ".join(self.missing) or "none",
            "matched": f"{self.matched:,} of {self.total:,} tensors",
        }
        if self.unmatched:
            facts["matches nothing"] = names(self.unmatched)
        facts |= {f"{part} from the list": file for part, file in self.listed.items()}
        if self.needs:
            facts["to draw, add"] = " ".join(self.needs)
        return facts


def is_published(what: str, header: Header) -> bool:
    """Whether a finding is a model of a family that is drawn with, whole or its denoiser alone."""
    kind, family = role(what, header)
    return kind in (CHECKPOINT, ALONE) and (family in families() or "Stable Diffusion kind" in what)


def described(path: Path, answer: Answer) -> Answer:
    """The answer for a published model with all that a survey of it tells; what it was, where there is none."""
    try:
        whole = survey(path)
    except UnnoiseError as error:
        return answer._replace(note="; ".join(filter(None, (answer.note, f"it cannot be drawn with: {error.what}"))))
    model = published(whole)
    faults = "; ".join(model.faults)
    note = "; ".join(filter(None, (answer.note, f"it cannot be drawn with: {faults}" if faults else "")))
    facts = {key: value for key, value in answer.facts.items() if key not in ("prediction", "packed")}
    return answer._replace(facts={**facts, **model.facts()}, note=note, model=model)


def published(found: Survey) -> Published:
    """What a survey says, in words and plain values."""
    calibration, config = found.calibration, found.config
    zero = calibration is not None and calibration.path.startswith("zero-snr")
    known = calibration is not None and not calibration.undecided
    marks = {
        "inpainting": config.channels_in != config.channels_out,
        "LCM": config.guidance_width > 0,
        "v": known and calibration is not None and calibration.prediction == "v",
        "zero-terminal-SNR": zero,
    }
    listed = {part: str(file) for part in found.missing if (file := listed_for(found.family.name, part))}
    faults = [f"{fault.what} ({fault.hint})" for part, fault in found.faults.items() if part not in found.missing]
    evidence = TRIAL if calibration is not None and calibration.undecided else ""
    return Published(
        family=found.family.name,
        title=found.family.title,
        variants=tuple(name for name, there in marks.items() if there),
        prediction=calibration.prediction if known and calibration is not None else None,
        evidence=evidence or (calibration.evidence if calibration is not None else "not known"),
        layout=layout_of(found),
        quantisation=quantisation_of(found),
        parts=tuple(part for part in found.family.pieces if part in found.parts),
        missing=found.missing,
        needs=tuple(f"--part {part}=FILE" for part in found.missing if part not in listed),
        listed=listed,
        matched=found.matched,
        total=found.total,
        unmatched=found.unknown[:MAX_UNKNOWN],
        faults=tuple(faults),
    )


def listed_for(family: str, part: str) -> Path | None:
    """The file of the list of models that loading takes a missing part from."""
    try:
        return next(iter(parts_for(family, part)), None)
    except UnnoiseError:  # a damaged list is told of where it is asked for
        return None


def layout_of(found: Survey) -> str:
    """How a model's files are laid out."""
    source, layout, _ = found.found[DENOISER]
    if found.whole is None:
        sources = {part: place[0] for part, place in found.found.items()}
        variants = {variant_of(file.name) or "" for each in sources.values() for file in each.files} - {""}
        shards = {part: len(each.files) for part, each in sources.items() if len(each.files) > 1}
        more = [f"variant {', '.join(sorted(variants))}"] if variants else []
        more += [f"{count} shards of the {part}" for part, count in shards.items()]
        return ", ".join(["diffusers folder", *more])
    spelling = "original names" if layout == "original" else "diffusers' names"
    inside = [part for part, (place, _, _) in found.found.items() if place is found.whole]
    pieces = f", {len(source.files)} shards" if len(source.files) > 1 else ""
    if inside == [DENOISER]:
        return f"denoiser alone, {spelling}{pieces}"
    absent = [part for part in found.family.pieces if part not in inside]
    if absent:
        return f"single file, {spelling}{pieces}, without {' and '.join(absent)}"
    return (f"all-in-one file, {spelling}" if rearranged(found) else "original single file") + pieces


def rearranged(found: Survey) -> bool:
    """Whether a single file has a part under other names than the file that the model's makers published."""
    first = {part: next(iter(places.values())) for part, (_, _, places) in found.found.items()}
    return not all(name.startswith(found.family.pieces[part].prefixes[0][0]) for part, name in first.items())


def quantisation_of(found: Survey) -> str:
    """How its numbers are packed; "none" where they are floats that networks compute with."""
    sources = [source for source, _, _ in found.found.values()] + ([found.whole] if found.whole is not None else [])
    shapes = {name: place for source in sources for name, place in source.places.items()}
    types = sorted({place.dtype for place in shapes.values()} - set(WHOLE))
    text = "\n".join(shapes)
    packed = [how for how, pattern in QUANTISED if re.search(pattern, text, re.M)]
    plain = [f"{', '.join(types)} without scales" if all(each.startswith("F8") for each in types) else ", ".join(types)]
    return ", ".join(packed or (plain if types else [])) or "none"


def header_of(found: Survey) -> Header:
    """All tensors of a folder's parts as one header, under the names of their folders."""
    tensors: dict[str, tuple[str, tuple[int, ...] | None]] = {}
    files = set()
    for part, (source, _, _) in found.found.items():
        folder = found.family.pieces[part].folder
        tensors |= {f"{folder}.{name}": (place.dtype, place.shape) for name, place in source.places.items()}
        files |= set(source.files)
    return Header(tensors, {}, sum(file.stat().st_size for file in files))
