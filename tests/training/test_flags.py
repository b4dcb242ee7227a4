"""Recipes on the command line: every setting has a flag, the set of flags is frozen, mistakes are told in one line."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import tyro

from training.flags import FROZEN, flags, listing, read, settings
from training.small import command
from unnoise.cli.main import main
from unnoise.cli.record import kept_arguments
from unnoise.core import registry
from unnoise.core.registry import find, index

RECIPES = list(index("recipes"))


def changed(now: Mapping[str, list[str]], frozen: Mapping[str, list[str]]) -> list[str]:
    """The frozen recipes whose flags are not those that they were; a new recipe is free until it is frozen."""
    return [recipe for recipe in frozen if now.get(recipe) != frozen[recipe]]


def test_the_flags_are_frozen() -> None:
    now = {recipe: flags(recipe) for recipe in index("recipes")}
    assert not changed(now, read(FROZEN.read_text("utf-8"))), (
        "a flag came, went or was renamed: scripts and run.json files use them; if it is meant, say so in the change "
        "log and run `PYTHONPATH=src:tests python tests/training/flags.py`"
    )
    assert read(listing()) == now


def test_a_changed_flag_is_noticed() -> None:
    """The control."""
    frozen = {"one": ["--a", "--b"], "two": ["--a"]}
    assert changed({"one": ["--a"], "two": ["--a"], "new": []}, frozen) == ["one"]
    assert changed({"one": ["--a", "--b"]}, frozen) == ["two"]


def test_a_new_recipe_needs_no_edit_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What makes its trainings tiny is read from its signature."""
    monkeypatch.setitem(registry._LIVE, ("recipes", "new"), find("recipes", "emoji-ddpm"))
    assert command("new", tmp_path, tmp_path)[2:] == command("emoji-ddpm", tmp_path, tmp_path)[2:]
    assert "--network.width" in command("new", tmp_path, tmp_path)


def another(flag: str, default: Any, kind: Any) -> tuple[list[str], Any]:
    """(what is typed, what it must become): a value of that kind that is not the default."""
    if type(None) in get_args(kind):  # Path, a number, or one of a list; or nothing
        (kind,) = (each for each in get_args(kind) if each is not type(None))
        if kind in (int, float):
            return ["7"], kind(7)
    if get_origin(kind) is Literal:
        value = next(each for each in get_args(kind) if each != default)
        return [str(value)], value
    if isinstance(default, tuple) and isinstance(default[0], tuple):
        return ["8", "1", "16", "2", "24", "3"], ((8, 1), (16, 2), (24, 3))
    if isinstance(default, tuple):
        return ["0.07", "0.2"], (0.07, 0.2)
    if isinstance(default, Path) or default is None:
        return ["some/where"], Path("some/where")
    if isinstance(default, str):
        return ["gelu"], "gelu"
    if isinstance(default, bool):
        return [], not default  # see ``switch``
    value = default + 1 if isinstance(default, int) else default / 2 + 0.03
    return [str(value)], value


def kind_of(function: Any, flag: str) -> Any:
    """The annotation of a setting, also of one that is a field of an argument."""
    kind: Any = None
    for name in flag.removeprefix("--").replace("-", "_").split("."):
        if kind is None:
            kind = inspect.signature(function, eval_str=True).parameters[name].annotation
        else:
            kind = get_type_hints(kind)[name]
    return kind


def switch(flag: str, default: Any) -> str:
    """What is typed to set it: of a switch that is on, the word that turns it off."""
    before, dot, name = flag.removeprefix("--").rpartition(".")
    return f"--{before}{dot}no-{name}" if default is True else flag


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_setting_can_be_set(recipe: str) -> None:
    function = find("recipes", recipe)
    found: dict[str, Any] = {}

    @functools.wraps(function)
    def take(**settings: Any) -> None:
        found.clear()
        found.update(settings)

    signature = inspect.signature(function, eval_str=True)
    take.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()} | {"return": None}
    for flag, default in settings(function):
        typed, wanted = another(flag, default, kind_of(function, flag))
        tyro.cli(take, args=[switch(flag, default), *typed])
        got: Any = found
        for name in flag.removeprefix("--").replace("-", "_").split("."):
            got = got[name] if isinstance(got, dict) else getattr(got, name)
        assert got == wanted != default, flag


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_explains_every_setting(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", recipe, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert [flag for flag in flags(recipe) if flag not in said] == []


def test_train_without_a_recipe_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["train"], ["train", "--help"]):
        assert main(args) == 0
        said = capsys.readouterr().out
        assert all(recipe in said for recipe in RECIPES)
        assert "unnoise train --resume FOLDER" in said


def test_what_a_resumed_training_repeats() -> None:
    args = ["--train.samples", "9", "--run.out", "x", "--run.minutes=3", "--data", "d", "--run.resume"]
    args += ["--run.dtype", "float32", "--run.out=y", "--run.minutes", "1"]
    assert kept_arguments(args) == ["--train.samples", "9", "--data", "d", "--run.dtype", "float32"]


MISTAKES = {
    "--train.micro-batch 3": "a batch of 4 does not divide into micro-batches of 3; choose a micro_batch that divides",
    "--train.samples 0": "samples 0 is out of range; choose a whole number, 1 or more",
    "--train.rate nan": "rate is nan, which is no number; give a number 0 or more",
    "--train.averages 0.9": "averages[0] 0.9 is out of range; choose a number between 0 and 0.28",
    "--network.channels 9": "emoji-flow cannot be built as set: num_channels (9) must be divisible by num_groups (8)",
    "--network.heads 3": "emoji-flow cannot be built as set: a width of 16 does not divide among 3 heads",
    "--network.heads 0": "emoji-flow cannot be built as set: ",
    "--network.text-width 99": "the network's text_width is 99, its data have 32; set text_width to 32",
    "--network.size 8": "the network's size is 8, its data have 16; set size to 16",
    "--network.channels-in 5": "the network's channels_in is 5, its data have 4; set channels_in to 4",
    "--prediction nois": "no prediction is called 'nois'; did you mean noise",
    "--prediction": "--prediction wants a value",
    "--prediction noise --contrast 0.1": "contrastive flow matching ",
    "--data nowhere": "no picture set at nowhere",
    "--autoencoder nowhere": "no model at nowhere",
    "--init nowhere": "--init brings its own text tower; leave out --text",
    "--run.threads 0": "threads 0 is out of range; choose a whole number from 1 to 1024",
    "--run.minutes nan": "nan minutes are no time to train; ask for more; 0 is a single step",
    "--run.minutes=-1": "-1 minutes are no time to train; ask for more; 0 is a single step",
    "--run.threads -3": "threads -3 is out of range",
    "--run.device tpu": "there is no device called 'tpu'; use cpu, cuda or auto",
    "--run.dtype float16": "--run.dtype cannot be 'float16'; one of: auto, float32, bfloat16",
    "--run.minutes soon": "--run.minutes wants a number, not 'soon'",
    "--resume": "there is no option --resume; did you mean --run.resume",
    "--trian.samples 3": "there is no option --trian.samples",
    "--train.samples": "--train.samples wants a value",
    "more": "'more' is one word too many",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_mistakes_are_told_in_one_line(
    typed: str, world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    args = [str(word) for word in command("emoji-flow", world, tmp_path / "run")]
    assert main([*args, *typed.split()]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"unnoise: {MISTAKES[typed]}"), line
    assert not (tmp_path / "run").exists(), "nothing is left"


TEXT_MISTAKES = {
    "--text.vocabulary 100": "the text tower has 100 ids and ends at 1, the tokenizer has 258 and ends at 1; set",
    "--text.end 7": "the text tower has 300 ids and ends at 7, the tokenizer has",
    "--text.heads 3": "emoji-text cannot be built as set: a width of 16 does not divide among 3 heads",
    "--text.activation relu": "emoji-text cannot be built as set: 'relu'",
    "--image.stages 9 1 9 1": "emoji-text cannot be built as set: num_channels (9) must be divisible by",
}


@pytest.mark.parametrize("typed", TEXT_MISTAKES)
def test_mistakes_of_shape(typed: str, world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args = [str(word) for word in command("emoji-text", world, tmp_path / "run")]
    assert main([*args, *typed.split()]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"unnoise: {TEXT_MISTAKES[typed]}"), line


@pytest.mark.parametrize("crop", ["60", "0", "-8"])
def test_crops_must_fold(crop: str, world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args = [str(word) for word in command("emoji-autoencoder", world, tmp_path / "run")]
    assert main([*args, "--crop", crop]) == 1
    said = f"unnoise: crops of {crop} pixels cannot be folded into latents; choose a multiple of 8\n"
    assert capfd.readouterr().err == said


def test_a_set_with_nothing_to_train_on(tmp_path: Path, world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from unnoise.data.write import write_set

    write_set(tmp_path / "empty", [], {})
    for recipe in RECIPES:
        args = [str(word) for word in command(recipe, world, tmp_path / "run")]
        assert main([*args, "--data", str(tmp_path / "empty")]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert line == (
            f"unnoise: the picture set at {tmp_path / 'empty'} has nothing to train on; build or name another one"
        )
