"""The house is in order: versions, links, commands that pages quote, the architecture page's example, sizes."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

import unnoise.solvers
from laws import solvers
from unnoise.cli import main as cli
from unnoise.cli import train
from unnoise.core import registry
from unnoise.core.solver import Solver

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_LINES, MAX_BYTES = 300, 16 * 2**20
LEFT_OUT = {".git", ".venv", "__pycache__", "runs", "data", "pictures", "outputs", "build", "dist"}


@cache
def files() -> list[Path]:
    """Every file of the project that git does not ignore; outside a repository, every file but what tools leave."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = [ROOT / name for name in done.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        found = [p for p in ROOT.rglob("*") if not LEFT_OUT & set(p.relative_to(ROOT).parts[:1]) and "." not in p.stem]
    return [path for path in found if path.is_file()]


def fenced(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), flags=re.M | re.S)


# versions


def test_installed_torch_is_the_pinned_one() -> None:
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), flags=re.M))
    assert torch.__version__.split("+")[0] == pins["torch"]
    assert version("torch").split("+")[0] == pins["torch"]


def test_every_direct_dependency_is_pinned() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    wanted = [*project["dependencies"], *(each for each in extras if not each.startswith("unnoise[")), "k-diffusion"]
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text("utf-8"), flags=re.M)
    assert sorted(re.split(r"[<>=!~ \[]", each)[0] for each in wanted) == sorted(pinned)


# pages


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.is_relative_to(ROOT), f"{page.name} links out of the project: {target}"
        assert linked.exists(), f"{page.name} links to {target}, which is not there"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}: no such heading"


def test_the_index_lists_every_page() -> None:
    linked = re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs/index.md").read_text("utf-8"))
    assert sorted(linked) == sorted(page.name for page in PAGES[1:] if page.name != "index.md")


def test_the_readme_has_both_commands() -> None:
    text, targets = (ROOT / "README.md").read_text("utf-8"), (ROOT / "Makefile").read_text("utf-8")
    for name in ("demo", "test"):
        assert f"make {name}\n" in text
    for name in re.findall(r"`make ([a-z-]+)", text):
        assert re.search(rf"^{name}:.*## ", targets, flags=re.M), (
            f"the Makefile has no target {name} with a line of help"
        )


def quoted() -> list[Any]:
    """Every `unnoise ...` command of the pages, of the Makefile and of the command line's own overview."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    values = dict(re.findall(r"^(\w+) [?:]= ?(.*)$", makefile, flags=re.M))
    makefile = re.sub(r"\$\((\w+)\)", lambda found: values.get(found[1], ""), makefile.replace("$(BIN)/", ""))
    texts = {"Makefile": makefile, "--help": cli.usage().split("example:")[1]}
    for page in PAGES:
        named = re.findall(r"`(unnoise [^`]+)`", page.read_text("utf-8"))
        texts[page.name] = "\n".join([*fenced(page, "sh"), *(" ".join(each.split()) for each in named)])
    cases = []
    for name, text in texts.items():
        for command in dict.fromkeys(re.findall(r"^\s*(unnoise .*?)(?:; \\)?$", text, flags=re.M)):
            words = shlex.split(command, comments=True)
            cases.append(pytest.param(words[1:], id=f"{name}: {command[:70]}"))
    return cases


def taken(function: Callable[..., Any], args: list[str]) -> None:
    """Parses the arguments as the command line does, and calls nothing."""
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            tyro.cli(cli._later(function), args=args)
    except SystemExit as stop:
        if stop.code:
            pytest.fail(said.getvalue())


@pytest.mark.parametrize("args", quoted())
def test_quoted_commands_parse(args: list[str]) -> None:
    if args in (["--help"], ["--version"]):
        return
    verb, rest = cli.find_verb(args)
    if not rest:  # a verb that is only named
        return
    module, name = cli.VERBS[verb].target.split(":")
    function = getattr(importlib.import_module(module), name)
    if verb == "train":
        function, rest = recipe_of(rest)
    taken(function, rest)


def recipe_of(rest: list[str]) -> tuple[Callable[..., Any], list[str]]:
    """The function that `unnoise train` parses, and its arguments."""
    if rest[:1] == ["--resume"]:  # the recipe is told by the run's folder, here by the folder's name
        known = Path(rest[1]).name in registry.index("recipes")
        rest = [Path(rest[1]).name if known else "emoji-flow", *rest[2:], "--run.out", rest[1], "--run.resume"]
    recipe = registry.find("recipes", rest[0])
    return train._with_options(recipe, rest[0], rest[1:]), rest[1:]


def test_a_wrong_flag_is_noticed() -> None:
    """The control."""
    with pytest.raises(pytest.fail.Exception, match="colour"):
        test_quoted_commands_parse(["generate", "red apple", "--colour", "red"])


class NoNetwork(socket.socket):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("a socket was opened")


@pytest.mark.parametrize("code", fenced(ROOT / "README.md", "python"), ids=lambda code: code.split("\n")[-2][:40])
def test_python_of_the_readme_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "socket", NoNetwork)
    exec(compile(code, "README.md", "exec"), {})
    assert list(tmp_path.glob("*.png"))


def test_the_demo_draws_and_opens_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from PIL import Image

    monkeypatch.setattr(socket, "socket", NoNetwork)
    monkeypatch.syspath_prepend(ROOT / "examples")
    path = importlib.import_module("demo").main(("red apple",), tmp_path / "out")
    assert sorted(p.name for p in path.parent.iterdir()) == [*(f"red-apple-{i}.png" for i in (1, 2, 3, 4)), "sheet.png"]
    with Image.open(path) as sheet:
        assert sheet.width > 4 * 128
    assert str(path) in capsys.readouterr().out


# the architecture page


@pytest.fixture
def midpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Solver]]:
    """The page's solver, as a file in the folder of solvers, found by its name."""
    code = next(block for block in fenced(ROOT / "docs/architecture.md", "python") if "@register" in block)
    (tmp_path / "solvers").mkdir()
    (tmp_path / "solvers" / "midpoint.py").write_text(code)
    source = ROOT / "src/unnoise"
    for each in [*(source / "solvers").glob("*.py"), *(source / kind for kind in registry.KINDS if kind != "solvers")]:
        (tmp_path / each.relative_to(source)).symlink_to(each)
    monkeypatch.setattr(registry, "_ROOT", tmp_path)
    monkeypatch.setattr(unnoise.solvers, "__path__", [*unnoise.solvers.__path__, str(tmp_path / "solvers")])
    registry._index.cache_clear()
    yield registry.find("solvers", "midpoint")
    for key in [key for key, thing in registry._LIVE.items() if thing.__module__ == "unnoise.solvers.midpoint"]:
        del registry._LIVE[key]
    sys.modules.pop("unnoise.solvers.midpoint", None)
    monkeypatch.undo()
    registry._index.cache_clear()


def test_a_solver_in_one_file_passes_the_laws(midpoint: type[Solver]) -> None:
    entry = registry.index("solvers")["midpoint"]
    assert entry.summary.startswith("DPM-Solver++(2S)")
    assert registry.find("solvers", entry.name) is midpoint
    for law in solvers.LAWS:
        law(midpoint())


def test_a_solver_in_one_file_needs_no_edit_elsewhere(midpoint: type[Solver]) -> None:
    """The tests of the table of solvers and of the pages ask it as they ask the others."""
    importlib.import_module("laws.test_laws").test_solver_table_is_whole("midpoint")
    importlib.import_module("oracles.test_documents").test_every_method_is_explained("solvers")


def documented() -> Iterator[ast.ClassDef]:
    """The classes of the page's block of concepts."""
    block = next(block for block in fenced(ROOT / "docs/architecture.md", "python") if "class NoiseLevel" in block)
    yield from (node for node in ast.parse(block).body if isinstance(node, ast.ClassDef))


@pytest.mark.parametrize("shown", list(documented()), ids=lambda shown: shown.name)
def test_concepts_are_as_documented(shown: ast.ClassDef) -> None:
    """Fields and methods of the page, by name and order, are those of the code."""
    modules = (importlib.import_module(f"unnoise.core.{p.stem}") for p in (ROOT / "src/unnoise/core").glob("[a-z]*.py"))
    real = next(getattr(m, shown.name) for m in modules if hasattr(m, shown.name))
    fields = [node.target.id for node in shown.body if isinstance(node, ast.AnnAssign)]  # type: ignore[union-attr]
    if is_dataclass(real):
        assert fields == [field.name for field in dataclass_fields(real)]
    else:
        assert fields == list(getattr(real, "_fields", []))
    for node in shown.body:
        if isinstance(node, ast.FunctionDef):
            told = [argument.arg for argument in node.args.args if argument.arg not in ("self", "cls")]
            parameters = inspect.signature(getattr(real, node.name)).parameters
            assert told == [name for name in parameters if name != "self"], f"{shown.name}.{node.name}"


# sizes and places


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.name)
def test_source_files_are_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MAX_LINES


def past_the_hooks(source: str) -> list[int]:
    """The lines in which a module's ``forward`` is called by name; to call that of a base class is no such thing."""

    def of_base(owner: ast.expr) -> bool:
        return isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"

    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [
        call.lineno
        for call in calls
        if isinstance(call, ast.Attribute) and call.attr == "forward" and not of_base(call.value)
    ]


def test_networks_are_called_and_never_past_their_hooks() -> None:
    """Sharding, offloading and whatever else hangs on hooks would be passed by."""
    for path in (ROOT / "src").rglob("*.py"):
        assert not past_the_hooks(path.read_text("utf-8")), path
    assert past_the_hooks("super().forward(x)\nself.network.forward(x)\nnetwork.forward(x)") == [2, 3], "control"


def test_no_file_is_large() -> None:
    assert not [path for path in files() if path.stat().st_size > MAX_BYTES]


def test_no_file_names_one_machine() -> None:
    """No absolute path of somebody's computer, no host of a package index: they hold nowhere else."""
    words = re.compile(r"(?<![\w.~}])/(?:work|tmp|root|home|mnt)/\w|pypi\.or[g]|python[h]osted|download\.pytorc[h]")
    for path in files():
        try:
            found = words.search(path.read_text("utf-8"))
        except UnicodeDecodeError:
            continue
        assert not found, f"{path.relative_to(ROOT)} names {found and found[0]}"
