"""The set of options is frozen: whoever adds or renames one changes the page too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unnoise.cli.main import VERBS, main

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "command-line.md"
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), flags=re.M | re.S))
GROUPS = ("data", "models")  # verbs of several words, with a section for all that share the first


def options(said: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])(--[a-z][a-z.-]*[a-z])", said)) - {"--help"}


def told(verb: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The options that the verb's own help names at the start of a row."""
    with pytest.raises(SystemExit) as stop:
        main([*verb.split(), *(["emoji-flow"] if verb == "train" else []), "--help"])
    assert stop.value.code == 0
    rows = re.findall(r"^│? *((?:-h, )?--.*)$", capsys.readouterr().out, flags=re.M)
    return set().union(*(options(re.split(r"  |\{|[A-Z]{2}", row)[0]) for row in rows))


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train" and verb.split()[0] not in GROUPS])
def test_options_are_as_documented(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert options(SECTIONS[verb]) | {"--no-json"} == told(verb, capsys) | {"--no-json"}


@pytest.mark.parametrize("group", GROUPS)
def test_options_of_groups_are_as_documented(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    own = set().union(*(told(verb, capsys) for verb in VERBS if verb.split()[0] == group))
    assert options(SECTIONS[group]) | {"--no-json"} == own | {"--no-json"}


def test_options_of_a_run_are_as_documented(capsys: pytest.CaptureFixture[str]) -> None:
    own = {option for option in told("train", capsys) if option.startswith("--run.")}
    assert {option for option in options(SECTIONS["train"]) if option.startswith("--run.")} == own


def test_every_verb_has_a_section() -> None:
    assert {verb.split()[0] for verb in VERBS} <= SECTIONS.keys()
