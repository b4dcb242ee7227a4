"""The report on how a set was built from a user's pictures: as a record, and in a few lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unnoise.data.intake import Quarantine
    from unnoise.data.write import Row

REPORT = "report.json"
HOW = "put a text of its name beside each (a.txt beside a.png), or one metadata.csv with columns file_name and text"


def report_of(rows: Sequence[Row], aside: Quarantine, ignored: list[str], keep_back: float) -> dict[str, Any]:
    """Files left out and why, duplicates, pictures without a caption, unused files."""
    same: dict[Any, list[str]] = defaultdict(list)
    near: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        same[row.identical].append(row.id)
        near[row.family].append(row.id)
    pixels = {row.id: row.pixels for row in rows}
    return {
        "pictures": len(rows),
        "groups": len(near),
        "keep_back": keep_back,
        "kept_back": sum(row.tier != "train" for row in rows),
        "left_out": aside.entries,
        "not_used": list(aside.beside.values()),
        "notes": aside.notes,
        "identical": [group for group in same.values() if len(group) > 1],
        "near": [group for group in near.values() if len({pixels[name] for name in group}) > 1],
        "without_caption": [row.id for row in rows if row.captions == [""]],
        "settings_left_to_training": ignored,
    }


def summary(report: Mapping[str, Any], limit: int = 5) -> Iterable[str]:
    """The report in a few lines, the first few names of each kind; those of older sets have fewer."""
    yield from warning(report)
    if report.get("keep_back") and not report["kept_back"]:
        many, groups = report["pictures"], report["groups"]
        what = (
            f"{many:,} pictures, which are {groups:,} when nearly equal ones count as one"
            if groups < many
            else f"{many:,} pictures"
        )
        yield f"none is kept back: by chance --keep-back {report['keep_back']:g} took none of {what}"
    notes: dict[str, list[str]] = defaultdict(list)
    for entry in report.get("notes", ()):
        notes[entry["note"]].append(entry["name"])
    for place, (note, names) in enumerate(notes.items()):
        if place == limit:
            yield f"and {len(notes) - limit:,} more notes"
            break
        yield f"{names[0] if len(names) == 1 else _some(names, limit)}: {note}"
    kinds: dict[str, list[str]] = defaultdict(list)
    for entry in report["left_out"]:
        kinds[entry["kind"]].append(f"{entry['name']} ({entry['detail']})" if entry["detail"] else entry["name"])
    for kind, names in sorted(kinds.items(), key=lambda pair: -len(pair[1])):
        yield f"left out, {kind}: {_some(names, limit)}"
    if report.get("not_used"):
        yield f"not used: {unused(report['not_used'])}"
    for what in ("identical", "near"):
        groups = [" = ".join(group[:3]) + (" = ..." if len(group) > 3 else "") for group in report[what]]
        if groups:
            title = {"identical": "equal pictures", "near": "nearly equal pictures"}[what]
            yield f"{title}: {_some(groups, limit)}"
    if report["without_caption"]:
        yield f"without a caption: {_some(report['without_caption'], limit)}"
    if report["settings_left_to_training"]:
        yield f"set in the TOML, and left to trainings: {', '.join(report['settings_left_to_training'])}"


def warning(report: Mapping[str, Any]) -> Iterable[str]:
    """A line if no picture of the set has a caption."""
    if report.get("pictures") and len(report["without_caption"]) == report["pictures"]:
        yield f"NO CAPTIONS were found, pictures without one: {report['pictures']:,}; {HOW}"


def unused(kinds: Sequence[Mapping[str, Any]], limit: int = 8) -> str:
    """The unused files beside the pictures, counted by kind, each kind with an example."""
    kinds = sorted(kinds, key=lambda entry: -entry["count"])
    more = f", and {len(kinds) - limit:,} more kinds" if len(kinds) > limit else ""
    return ", ".join(f"{each['count']:,} {each['kind']} (such as {each['example']})" for each in kinds[:limit]) + more


def _some(names: Sequence[str], limit: int) -> str:
    more = f", and {len(names) - limit:,} more" if len(names) > limit else ""
    return f"{len(names):,}: {', '.join(names[:limit])}{more}"
