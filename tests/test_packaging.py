"""What is installed for what: drawing stands on seven libraries, and what needs another says which extra brings it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from training.toy import toy
from unnoise import extras
from unnoise.cli.main import VERBS
from unnoise.core import registry
from unnoise.errors import UnnoiseError
from unnoise.training.runner import run

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "unnoise"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SEVEN = {"torch", "numpy", "tokenizers", "safetensors", "pillow", "rich", "tyro"}
MODULES = {"pillow": "PIL"}  # where a library is imported under another name

BLOCK = """
import importlib.metadata as metadata, json, re, sys
from packaging.requirements import Requirement

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

waiting, allowed = [*json.loads(sys.argv[1])], set()
there = {plain(found.name) for found in metadata.distributions()}
while waiting:  # the seven, and what they need themselves
    name = plain(waiting.pop())
    if name in there - allowed:
        allowed.add(name)
        wanted = [Requirement(each) for each in metadata.requires(name) or []]
        waiting += [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
owners = metadata.packages_distributions()
blocked = {module for module, names in owners.items() if not allowed & {plain(name) for name in names}} - {"unnoise"}

class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker)
"""

CALLS = (
    BLOCK
    + """
import contextlib, io
from unnoise.cli.main import main

assert sys.modules["unnoise"].__file__.startswith(sys.argv[3])
for call in json.loads(sys.argv[2]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(call)
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""
)


def requirements(names: list[str]) -> set[str]:
    return {re.split(r"[<>=!~ \[]", each)[0] for each in names}


def outside(file: Path) -> set[str]:
    """Top-level names of the libraries that a file imports, anywhere in it, but not for type checkers alone."""
    text = re.sub(r"^if TYPE_CHECKING:\n(?:(?:    .*)?\n)+", "", file.read_text("utf-8"), flags=re.M)
    found = re.findall(r"^ *(?:from (\w+)[\w.]* import |import (\w+))", text, flags=re.M)
    return {first or second for first, second in found} - sys.stdlib_module_names - {"unnoise"}


def test_drawing_stands_on_seven() -> None:
    assert requirements(PROJECT["dependencies"]) == SEVEN


def test_extras_are_those_that_the_code_names() -> None:
    """Each library of an extra is loaded by ``unnoise.extras``, under the extra that brings it."""
    for extra in ("train", "hub", "serve", "studio"):
        named = {library for library, (of, _) in extras.LIBRARIES.items() if of == extra}
        assert requirements(PROJECT["optional-dependencies"][extra]) == named
    assert set(PROJECT["optional-dependencies"]) == {"train", "hub", "serve", "studio", "all", "dev"}


def test_the_page_says_what_each_verb_needs() -> None:
    page = (ROOT / "docs" / "installing.md").read_text("utf-8")
    assert not [verb for verb in VERBS if f"`{verb.split()[0]}`" not in page]
    for extra, libraries in PROJECT["optional-dependencies"].items():
        assert f"`{extra}`" in page
        assert extra not in ("train", "hub") or all(name in page for name in requirements(libraries))


def test_nothing_but_the_seven_is_imported_directly(tmp_path: Path) -> None:
    known = {MODULES.get(name, name) for name in SEVEN}
    for file in SRC.rglob("*.py"):
        assert outside(file) <= known, f"{file.relative_to(SRC)}: load it by unnoise.extras"
    planted = tmp_path / "planted.py"  # the control
    planted.write_text("def f():\n    import pyarrow.parquet as pq\n")
    assert outside(planted) == {"pyarrow"}


def called(calls: list[list[str]], cwd: Path, site: Path = SRC.parent) -> list[tuple[int, str, str]]:
    """(exit status, output, complaint) of each call of the command line, in a process that has the seven alone and
    unnoise from the folder ``site``."""
    env = {**os.environ, "PYTHONPATH": str(site)}
    code = [sys.executable, "-c", CALLS, json.dumps(sorted(SEVEN)), json.dumps(calls), str(site)]
    done = subprocess.run(code, capture_output=True, text=True, cwd=cwd, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_plain_installation_draws_and_names_the_extra_for_the_rest(tiny_model: Path, tmp_path: Path) -> None:
    tiny, picture = str(tiny_model), "pictures/red-apple-1.png"
    works = [
        ["generate", "red apple", "--model", tiny, "--seed", "1"],
        ["replay", picture, "--model", tiny],
        ["list"],
        ["solvers"],
        ["inspect", picture],
        ["inspect", tiny],
        ["noise", picture, "--frames", "2", "--size", "16"],
    ]
    wants = [
        ["data", "emoji"],
        ["data", "folder", "pictures"],
        ["data", "show"],
        ["measure", tiny],
        ["eval", tiny],
        ["study", "steps"],
        ["nearest", picture, "--data", "data/emoji"],
        *(["train", recipe] for recipe in registry.index("recipes")),
    ]
    answers = called([*works, *wants], tmp_path)
    for call, (status, out, complaint) in zip(works, answers, strict=False):
        assert (status, complaint) == (0, ""), call
        assert out
    for call, (status, out, complaint) in zip(wants, answers[len(works) :], strict=True):
        assert status == 1, call
        assert out == ""
        assert re.fullmatch(r'unnoise: .*which is not installed; pip install "unnoise\[train\]"\n', complaint), call
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures"], "nothing is half-written"


@pytest.mark.slow
def test_the_wheel_holds_the_model_and_draws(tmp_path: Path) -> None:
    """Unpacked as pip does it, with the seven beside it; the source is not on the path."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    metadata = next(site.glob("*.dist-info/METADATA")).read_text("utf-8")
    assert requirements(re.findall(r"^Requires-Dist: ([^;\n]+)$", metadata, flags=re.M)) == SEVEN
    sources = {path.relative_to(SRC) for path in SRC.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(site / "unnoise") for path in (site / "unnoise").rglob("*") if path.is_file()} == sources
    ((status, _, complaint),) = called([["generate", "red apple", "--seed", "1"]], tmp_path, site)
    assert (status, complaint) == (0, "")
    assert (tmp_path / "pictures" / "red-apple-1.png").is_file()


def test_a_training_wants_its_curves_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UnnoiseError, match=r'need tensorboard, which is not installed; pip install "unnoise\[train\]"'):
        run(toy(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_library_that_is_broken_is_told_from_one_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "emoji.py").write_text("import colours_of_nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "emoji", raising=False)
    with pytest.raises(UnnoiseError, match=r"need emoji, which cannot be imported .*colours_of_nothing"):
        extras.load("emoji")
