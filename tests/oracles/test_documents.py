"""The documents say what is: every test that they name exists, and every method is in them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from unnoise.core.registry import index

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


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_knows_every_method(kind: str) -> None:
    text = "".join((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in PAGES[kind])
    missing = [name for name in index(kind) if f"`{name}`" not in text]
    assert not missing, f"docs/{PAGES[kind][0]}.md says nothing of {missing}"
