"""Finding a method of ours by its name reads one file, and asks no other package."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from unnoise.core import packages, registry
from unnoise.core.registry import KINDS, own
from unnoise.errors import UnnoiseError


@pytest.mark.parametrize("kind", KINDS)
def test_each_name_and_alias_is_found_as_the_index_has_it(kind: str) -> None:
    for entry in own(kind).values():
        for name in entry.names:
            assert registry._named(kind, name) == entry


@pytest.mark.parametrize("name", ["", "nope", 'a"b', "(", "flow)", "*", "Flow"])
def test_what_is_no_name_is_not_found(name: str) -> None:
    assert registry._named("paths", name) is None
    with pytest.raises(UnnoiseError, match="no path is called"):
        registry.find("paths", name)


def test_one_file_is_parsed_and_no_package_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def parse(text: str, *args: Any) -> Any:
        parsed.append(text)
        return tree(text, *args)

    def asked() -> Any:
        raise AssertionError("other packages are asked")

    tree = ast.parse
    monkeypatch.setattr(ast, "parse", parse)
    monkeypatch.setattr(packages, "offers", asked)
    monkeypatch.setattr(registry, "_LIVE", {})
    registry._named.cache_clear()
    registry._offered.cache_clear()
    assert registry.find("solvers", "dpmpp-2m").name == "dpmpp-2m"
    assert len(parsed) == 1
    with pytest.raises(AssertionError, match="are asked"):
        registry.find("solvers", "nope")
