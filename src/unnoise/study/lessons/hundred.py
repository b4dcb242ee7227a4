"""A hundred fixed prompts on one sheet, without captions, for a person to name; the key is a second file."""

from __future__ import annotations

from unnoise.study.chart import Chart
from unnoise.study.lab import Lab
from unnoise.study.page import Lesson, Table, Value, grid
from unnoise.study.prompts import hundred

COLUMNS = 10


def study(lab: Lab) -> Lesson:
    """Draws the fixed list once, picture i with the lab's seed + i; the lab's own prompts are not used.

    The person who names the pictures must not have seen the list, and writes a word or two for each number. An answer
    is right if it names the thing, and for persons the role.
    """
    entries = hundred()
    pictures = lab.draw([each.prompt for each in entries], [lab.seed + i for i in range(len(entries))]).pixels
    starts = range(0, len(entries), COLUMNS)
    rows = [pictures[start : start + COLUMNS] for start in starts]
    names = [f"{start + 1} to {start + len(row)}" for start, row in zip(starts, rows, strict=True)]
    lines = [f"{number}. {each.prompt} ({each.kind})" for number, each in enumerate(entries, 1)]
    kinds = list(dict.fromkeys(each.kind for each in entries))
    table: list[list[Value]] = [[kind, sum(each.kind == kind for each in entries)] for kind in sorted(kinds)]
    charts: list[Chart] = []
    return Lesson(
        "A hundred to name",
        ["What is this? Pictures are numbered from left to right. The key lies beside this page; do not look first."],
        [Table(["kind", "pictures"], table)],
        charts,
        grid(rows, [], names),
        "# Key to the hundred\n\n" + "\n".join(lines) + "\n",
        f"the fixed {len(entries)}",
    )
