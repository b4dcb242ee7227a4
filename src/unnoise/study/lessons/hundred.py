"""A hundred fixed prompts on one sheet, without captions, for a person to name; the key is a second file."""

from __future__ import annotations

from unnoise.study.chart import Chart
from unnoise.study.lab import Lab
from unnoise.study.page import Lesson, Table, Value, grid
from unnoise.study.prompts import hundred

COLUMNS = 10


def study(lab: Lab) -> Lesson:
    """Draws the committed list once, with the lab's seed and one more for each; the lab's own prompts are not used.

    Whoever names the pictures must not have seen the list. They write a word or two below each number; who compares
    them with the key counts an answer as right if it names the thing, and for persons the role.
    """
    asked = hundred()
    drawn = lab.draw([each.prompt for each in asked], [lab.seed + i for i in range(len(asked))]).pixels
    starts = range(0, len(asked), COLUMNS)
    rows = [drawn[start : start + COLUMNS] for start in starts]
    names = [f"{start + 1} to {start + len(row)}" for start, row in zip(starts, rows, strict=True)]
    listed = [f"{number}. {each.prompt} ({each.kind})" for number, each in enumerate(asked, 1)]
    kinds = list(dict.fromkeys(each.kind for each in asked))
    table: list[list[Value]] = [[kind, sum(each.kind == kind for each in asked)] for kind in sorted(kinds)]
    charts: list[Chart] = []
    return Lesson(
        "A hundred to name",
        ["What is this? Pictures are numbered from left to right. The key lies beside this page; do not look first."],
        [Table(["kind", "pictures"], table)],
        charts,
        grid(rows, [], names),
        "# Key to the hundred\n\n" + "\n".join(listed) + "\n",
        f"the fixed {len(asked)}",
    )
