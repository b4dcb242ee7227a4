"""The documents say what is: every test that they name exists, and every method is explained."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from unnoise.core.registry import Entry, own

ROOT = Path(__file__).resolve().parents[2]


def all_tests() -> set[str]:
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "tests").rglob("test_*.py"))
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_parity_names_all_tests() -> None:
    """Each row of both tables ends in one test; each deliberate difference that is tested is in the table."""
    text = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and not re.match(r"\| ?(what|-)", line)]
    assert len(rows) >= 15
    named = set()
    for row in rows:
        cell = row.strip("| ").split("|")[-1].strip()
        match = re.fullmatch(r"`(test_\w+)`", cell)
        assert match, f"no test beside: {row}"
        named.add(match.group(1))
    existing = all_tests()
    assert named <= existing, named - existing
    assert {name for name in existing if name.startswith("test_difference_")} <= named


PAGES = {
    "paths": ["mathematics"],
    "predictions": ["mathematics"],
    "spacings": ["spacings"],
    "solvers": ["solvers", "stochastic-solvers"],
    "guidances": ["guidance"],
}


SENTENCE = re.compile(r".{40,}\.")


def unexplained(kind: str, entries: Iterable[Entry]) -> list[str]:
    """The methods that neither a page describes nor the first line of their docstring, which lists show."""
    text = "".join((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in PAGES[kind])
    known = [entry for entry in entries if f"`{entry.name}`" in text or SENTENCE.fullmatch(entry.summary)]
    return [entry.name for entry in entries if entry not in known]


@pytest.mark.parametrize("kind", PAGES)
def test_every_method_is_explained(kind: str) -> None:
    """A new method needs no edit of a page: a first line that says what it computes will do."""
    entries = list(own(kind).values())
    assert not unexplained(kind, entries)
    silent = entries[0]._replace(name="nameless", summary="A method.")  # the control
    assert unexplained(kind, [*entries, silent]) == ["nameless"]


def test_tables_of_solvers_name_solvers() -> None:
    """Rows that begin with one name in backticks."""
    names = {name for entry in own("solvers").values() for name in entry.names}
    text = "".join((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in PAGES["solvers"])
    rows = re.findall(r"^\| `([\w+-]+)` \|", text, flags=re.M)
    assert len(rows) > 20
    assert set(rows) <= names
