"""Methods of other packages: the package of docs/own-methods.md works as told, and broken ones break nothing else."""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from laws import asked
from test_house import ROOT, fenced
from tiny import DEFAULTS, components, lively, tokenizer
from unnoise.cli.main import main
from unnoise.core import packages, registry
from unnoise.core.denoiser import Denoiser
from unnoise.engine.readers.read import READERS, read_settings, texts_at, what_texts_say
from unnoise.errors import UnnoiseError
from unnoise.weights.model import load_model, save_model

PAGE = ROOT / "docs" / "own-methods.md"
Install = Callable[..., Path]
Said = pytest.CaptureFixture[str]


def forget() -> None:
    """What was read of installed packages is read anew."""
    packages.offers.cache_clear()
    registry._offered.cache_clear()
    importlib.invalidate_caches()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package from (name, {file: text}, {kind: {name: target}}), as pip leaves it."""
    site, before, live = tmp_path / "site", set(sys.modules), dict(registry._LIVE)
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def call(name: str, files: Mapping[str, str], offers: Mapping[str, Mapping[str, str]], points: str = "") -> Path:
        for file, text in files.items():
            (site / file).parent.mkdir(exist_ok=True)
            (site / file).write_text(text, "utf-8")
        record = site / f"{name.replace('-', '_')}-0.1.0.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
        for kind, targets in offers.items():
            points += f"[unnoise.{kind}]\n" + "".join(f"{key} = {target}\n" for key, target in targets.items()) + "\n"
        (record / "entry_points.txt").write_text(points)
        forget()
        return record

    yield call
    monkeypatch.undo()
    for module in set(sys.modules) - before:
        if getattr(sys.modules[module], "__file__", None) and str(site) in str(sys.modules[module].__file__):
            del sys.modules[module]
    registry._LIVE.clear()
    registry._LIVE.update(live)
    forget()


@pytest.fixture
def sketchbook(install: Install) -> Path:
    """The page's package."""
    blocks = [*fenced(PAGE, "toml"), *(block for block in fenced(PAGE, "python") if block.startswith("# sketchbook/"))]
    files = {block.split("\n")[0].removeprefix("# "): block for block in blocks}
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    offers = {group.removeprefix("unnoise."): targets for group, targets in project["entry-points"].items()}
    assert set(files) == {"sketchbook/solvers.py", "sketchbook/networks.py", "sketchbook/readers.py"}
    return install(project["name"], {"sketchbook/__init__.py": "", **files}, offers)


def test_listing_names_it_and_imports_nothing(sketchbook: Path, capsys: Said) -> None:
    for words in (["list", "solvers"], ["list", "networks"], ["list", "readers"], ["solvers"]):
        assert main(words) == 0
    out = capsys.readouterr().out
    assert "Mixes the two estimates at the next level. One call a step, order 1. (of the package sketchbook)" in out
    assert "Three convolutions" in out
    assert "What Sketchbook writes" in out
    assert "to see what a solver of another package looks like" in out
    entry = registry.index("solvers")["sketch"]
    assert (entry.aliases, entry.facts["order"], entry.package) == (("draft",), 1, "sketchbook")
    assert "sketch" not in registry.own("solvers")
    assert not [module for module in sys.modules if module.startswith("sketchbook")]


def test_its_solver_draws_and_replays(
    sketchbook: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.chdir(tmp_path)
    for solver, out in (("sketch", "theirs"), ("euler", "ours")):
        words = ["generate", "red apple", "--model", str(tiny_model), "--seed", "1", "--solver", solver, "--out", out]
        assert main(words) == 0
    theirs, ours = (Image.open(f"{folder}/red-apple-1.png") for folder in ("theirs", "ours"))
    assert theirs.tobytes() == ours.tobytes(), "it is Euler's method"
    capsys.readouterr()
    assert main(["replay", "theirs/red-apple-1.png", "--model", str(tiny_model)]) == 0
    assert registry.find("solvers", "draft") is registry.find("solvers", "sketch")


def test_the_laws_are_about_its_solver(sketchbook: Path) -> None:
    cases = [(law, thing) for _, law, thing in asked.cases_of("solvers", "sketch")]
    assert [law for law, _ in cases] == [law for _, law, _ in asked.cases_of("solvers", "euler")]
    assert {type(thing).__module__ for _, thing in cases} == {"sketchbook.solvers"}


@pytest.mark.slow
def test_its_solver_is_asked_the_laws(sketchbook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(asked.ask("solvers", "sketch")) > 10
    monkeypatch.setattr(registry.find("solvers", "sketch"), "order", 2)  # the control
    with pytest.raises(AssertionError):
        asked.ask("solvers", "sketch")


def test_a_model_with_its_network(sketchbook: Path, tmp_path: Path) -> None:
    parts = components()
    network = lively(registry.find("networks", "plain-conv")())
    parts["denoiser"] = Denoiser(network, registry.find("paths", "flow")(), registry.find("predictions", "flow")())
    folder, info = tmp_path / "model", {"name": "plain", "defaults": DEFAULTS}
    save_model(folder, parts, info, {"tokenizer.json": tokenizer().json})
    loaded = load_model(folder, ("denoiser",))[0]["denoiser"]
    assert type(loaded.network) is type(network)  # type: ignore[comparison-overlap]
    words = ["generate", "red apple", "--model", str(folder), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    (sketchbook / "entry_points.txt").unlink()
    (sketchbook / "METADATA").unlink()
    sketchbook.rmdir()
    forget()
    with pytest.raises(UnnoiseError, match="made with the package sketchbook, which is not installed; install it, if"):
        load_model(folder, ("denoiser",))
    assert main(words) == 1


@pytest.mark.parametrize("names", ["sketchbook", [1], ["a\x1b[31m"], ["x"] * 99, {"sketchbook": 1}])
def test_names_of_packages_that_are_none(names: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="packages are no"):
        packages.check_installed(names)


def test_its_reader_reads(sketchbook: Path, tmp_path: Path, capsys: Said) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("sketchbook", "words: a red apple\nstrokes: 12\nseed: 5\npaper: rough")
    Image.new("RGB", (128, 128)).save(tmp_path / "sketch.png", pnginfo=texts)
    reading = read_settings(tmp_path / "sketch.png")
    assert reading is not None
    assert (reading.tool, reading.prompt, reading.steps, reading.seed) == ("Sketchbook", "a red apple", 12, 5)
    assert reading.left_out == {"paper": "rough"}
    assert main(["inspect", str(tmp_path / "sketch.png")]) == 0
    assert "Sketchbook" in capsys.readouterr().out
    assert texts_at(tmp_path / "sketch.png").keys() == {"sketchbook"}


def test_all_readers_of_ours_are_asked() -> None:
    assert sorted(read.name for read in READERS) == sorted(registry.own("readers"))  # type: ignore[attr-defined]


RECIPE = """
from training.toy import toy_recipe
from unnoise.core.registry import register
from unnoise.training.plan import Training
from unnoise.training.settings import TrainSettings

@register("theirs")
def theirs(train: TrainSettings = TrainSettings(samples=8, batch=4, warmup=4, preview_every=0)) -> Training:
    \"\"\"A toy of another package.

    Args:
        train: length and rates.
    \"\"\"
    return toy_recipe(train)
"""


def test_its_recipe_trains(install: Install, tmp_path: Path, capsys: Said) -> None:
    install("trainer", {"their_recipes.py": RECIPE}, {"recipes": {"theirs": "their_recipes:theirs"}})
    assert main(["train"]) == 0
    assert "A toy of another package." in capsys.readouterr().out
    run = tmp_path / "run"
    assert main(["train", "theirs", "--train.samples", "12", "--run.dtype", "float32", "--run.out", str(run)]) == 0
    assert json.loads((run / "run.json").read_text())["recipe"] == "theirs"
    assert (run / "model" / "model.json").is_file()


METHOD = '''
from unnoise.core.registry import register
from unnoise.core.solver import Solver

@register({name!r})
class Theirs(Solver):
    """A solver."""
'''


def test_a_name_of_ours_stays_ours(install: Install, capsys: Said) -> None:
    both = METHOD.format(name="euler") + METHOD.format(name="fine").replace("Theirs", "Fine")
    install("thief", {"thief.py": both}, {"solvers": {"euler": "thief:Theirs", "fine": "thief:Fine"}})
    assert registry.find("solvers", "euler").__module__ == "unnoise.solvers.euler"
    why = registry.faults("solvers")["euler"]
    assert why == (
        "the package thief calls its solver 'euler', which is the name of unnoise's own unnoise.solvers.euler"
    )
    assert main(["list", "solvers"]) == 0
    assert why in capsys.readouterr().out
    with pytest.raises(UnnoiseError, match=r"cannot be imported .*thief calls its solver 'euler'"):
        registry.find("solvers", "fine")  # whose file also takes ours
    assert registry.find("solvers", "euler").__module__ == "unnoise.solvers.euler"


def test_an_alias_of_ours_stays_ours(install: Install) -> None:
    alias = next(name for entry in registry.own("solvers").values() for name in entry.aliases)
    text = METHOD.format(name="theirs").replace("('theirs')", f"('theirs', {alias!r})")
    install("thief", {"thief.py": text}, {"solvers": {"theirs": "thief:Theirs"}})
    assert alias in registry.faults("solvers")["theirs"]
    with pytest.raises(UnnoiseError, match="'theirs' cannot be used: the package thief calls its solver"):
        registry.find("solvers", "theirs")


BROKEN = {
    "no source": ({}, "gone:Theirs", "the source of gone is not there"),
    "no such class": ({"bad.py": METHOD.format(name="theirs")}, "bad:Other", "bad has no Other with @register"),
    "another name": ({"bad.py": METHOD.format(name="other")}, "bad:Theirs", "bad has no Theirs with @register"),
    "no Python": ({"bad.py": "def ("}, "bad:Theirs", "the source of bad cannot be read"),
    "no UTF-8": ({"bad.py": "# -*- coding: \x00"}, "bad:Theirs", "bad"),
    "no target": ({}, "bad", "is not of the form package.module:Class"),
    "a target that runs": ({}, "os:system('x')", "is not of the form package.module:Class"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_offer_is_listed_with_why(case: str, install: Install, capsys: Said) -> None:
    files, target, why = BROKEN[case]
    install("broken-one", files, {"solvers": {"theirs": target}})
    assert main(["list", "solvers"]) == 0
    out = capsys.readouterr().out
    assert "theirs" in out
    assert why in out
    assert "broken-one" in out
    with pytest.raises(UnnoiseError, match="the solver 'theirs' cannot be used: package broken-one: "):
        registry.find("solvers", "theirs")
    assert registry.find("solvers", "euler")


@pytest.mark.parametrize("code", ["import no_such_thing\n", "1 / 0\n", "raise SystemExit(3)\n", "open('/no/such')\n"])
def test_a_package_that_cannot_be_imported_is_named_when_chosen(code: str, install: Install) -> None:
    install("broken", {"bad.py": code + METHOD.format(name="theirs")}, {"solvers": {"theirs": "bad:Theirs"}})
    assert "theirs" in registry.index("solvers")
    with pytest.raises(UnnoiseError, match="the solver 'theirs' of the package broken cannot be imported"):
        registry.find("solvers", "theirs")


def test_a_thing_of_another_kind_is_refused(install: Install) -> None:
    install("broken", {"bad.py": METHOD.format(name="theirs")}, {"spacings": {"theirs": "bad:Theirs"}})
    with pytest.raises(
        UnnoiseError, match="the spacing 'theirs' of the package broken is none: it is one of the solve"
    ):
        registry.find("spacings", "theirs")


def test_two_packages_with_one_name(install: Install) -> None:
    for name in ("aaa", "bbb"):
        install(name, {f"{name}.py": METHOD.format(name="theirs")}, {"solvers": {"theirs": f"{name}:Theirs"}})
    assert registry.index("solvers")["theirs"].package == "aaa"
    assert "the packages aaa and bbb both offer it; uninstall one" in registry.faults("solvers")["theirs"]


@pytest.mark.parametrize(
    "points", ["[unnoise.solvers\n", "no section\n[unnoise.solvers]\nx\n", "\x00[unnoise.solvers]"]
)
def test_damaged_metadata_breaks_nothing_else(points: str, install: Install) -> None:
    install("good", {"good.py": METHOD.format(name="fine")}, {"solvers": {"fine": "good:Theirs"}})
    install("damaged", {}, {}, points)
    assert "fine" in registry.index("solvers")


def test_a_reader_that_fails_is_noted(install: Install, capsys: Said) -> None:
    text = (
        "from unnoise.core.registry import register\n@register('{name}')\ndef read(texts):\n    'Reads.'\n    {body}\n"
    )
    files = {"a_bad.py": text.format(name="bad", body="1 / 0"), "a_odd.py": text.format(name="odd", body="return 7")}
    install("failing", files, {"readers": {"bad": "a_bad:read", "odd": "a_odd:read"}})
    assert what_texts_say({"nothing": "known"}) is None
    err = capsys.readouterr().err
    assert "note: the reader bad of the package failing failed (ZeroDivisionError: division by zero)" in err
    assert "note: the reader odd of the package failing failed (it answers with int, not with a Reading)" in err


def test_a_name_in_a_record_only_looks_up(tmp_path: Path) -> None:
    """No module is imported for a name that nobody offers, however it is written."""
    for name in ("colorsys:rgb_to_hls", "colorsys.rgb_to_hls", "../colorsys", "unnoise.solvers.euler:Euler"):
        sys.modules.pop("colorsys", None)
        with pytest.raises(UnnoiseError, match="no solver is called"):
            registry.find("solvers", name)
        assert "colorsys" not in sys.modules
    assert json.dumps(sorted(registry.faults("solvers"))) == "[]"
