"""What is typed, as it is meant: homes, locales, widths."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from unnoise.cli.main import VERBS, main
from unnoise.cli.meant import meant, nameable, text
from unnoise.errors import UnnoiseError
from unnoise.files import expanded, json_bytes

Said = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and another folder to work in."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


# homes


def test_a_home_is_meant_by_its_sign(home: Path) -> None:
    assert expanded("~/x") == home / "x"
    assert expanded(Path("~")) == home
    root = os.path.expanduser("~root")
    assert str(expanded("~root/x")) == f"{root}/x"
    for plain in ("x~", "a~/~", "a/~/b", "", "/~"):
        assert expanded(plain) == Path(plain)


def test_a_home_that_nobody_has(home: Path) -> None:
    with pytest.raises(UnnoiseError, match=r"^~nobody-here/x is in an unknown home folder; write the full"):
        expanded("~nobody-here/x")
    Path("~nobody-here").mkdir()
    assert expanded("~nobody-here/x") == Path("~nobody-here/x"), "it is called that"


@pytest.mark.parametrize("typed", ["--out=~/pictures", "--out\0~/pictures"])
def test_pictures_go_home(typed: str, home: Path, tiny_model: Path, capsys: Said) -> None:
    (home / "tiny").symlink_to(tiny_model)
    assert main(["generate", "red apple", "--model", "~/tiny", "--seed", "1", *typed.split("\0")]) == 0
    assert capsys.readouterr().out.startswith(f"{home}/pictures/red-apple-1.png  seed 1\n")
    assert [each.name for each in (home / "pictures").iterdir()] == ["red-apple-1.png"]
    assert not list(Path.cwd().iterdir()), "no folder called ~"
    assert main(["replay", "~/pictures/red-apple-1.png", "--model", "~/tiny"]) == 0
    assert main(["generate", "red apple", "--model", "~/none"]) == 1
    assert f"listed model is called '{home}/none'" in capsys.readouterr().err


def test_paths_of_the_python_interface_go_home(home: Path, tiny_model: Path) -> None:
    import unnoise
    from unnoise.data.square import open_picture
    from unnoise.data.store import open_set

    (home / "tiny").symlink_to(tiny_model)
    (picture,) = unnoise.load("~/tiny").generate("red apple", steps=1)
    picture.save(home / "x.png")
    assert open_picture(Path("~/x.png")).size == picture.size
    with pytest.raises(UnnoiseError, match=f"no picture set at {home}/none"):
        open_set("~/none")


@dataclass(frozen=True)
class Inner:
    out: Path | None = None
    word: str = "a"


@dataclass(frozen=True)
class Outer:
    run: Inner = Inner()
    many: tuple[Path, ...] = ()
    number: int = 3


def test_every_path_in_a_value(home: Path) -> None:
    found = meant(Outer(Inner(Path("~/a"), "~"), (Path("~/b"), Path("c"))), "x")
    assert found == Outer(Inner(home / "a", "~"), (home / "b", Path("c"))), "a word is no path"
    whole = Outer()
    assert meant(whole, "x") is whole


# locales


def locale(encoding: str) -> tuple[object, object]:
    """What Python makes of the bytes of an argument under a locale, and back."""
    return (
        lambda data: data.decode(encoding, "surrogateescape"),
        lambda text: text.encode(encoding, "surrogateescape"),
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "euc-jp"])
@pytest.mark.parametrize("said", ["ein Käse", "红苹果", "🍎", "plain"])
def test_text_in_utf8_is_read_whatever_the_locale(encoding: str, said: str) -> None:
    decode, encode = locale(encoding)
    assert text(decode(said.encode()), "prompt", encode) == said  # type: ignore[operator,arg-type]


def test_text_in_the_locale_is_read_too() -> None:
    _, encode = locale("latin-1")
    assert text("Käse", "prompt", encode) == "Käse"  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_text_in_neither_is_told(encoding: str) -> None:
    decode, encode = locale(encoding)
    typed = decode("Käse".encode("latin-1"))  # type: ignore[operator]
    with pytest.raises(UnnoiseError, match=r"^--cfg-scale is no UTF-8 text \(byte 0xe4\); type it in UTF-8"):
        text(typed, "cfg_scale", encode)  # type: ignore[arg-type]


@pytest.mark.parametrize(("option", "name"), [(None, "the prompt"), ("--negative", "--negative"), ("--invert",) * 2])
def test_the_option_is_named(option: str | None, name: str, home: Path, capsys: Said) -> None:
    words = ["k\udce4se"] if option is None else ["cheese", option, "k\udce4se"]
    assert main(["generate", *words]) == 1
    assert capsys.readouterr().err.startswith(f"unnoise: {name} is no UTF-8 text (byte 0xe4); type it in UTF-8, or")


def test_names_of_other_bytes(home: Path, tiny_model: Path, capsys: Said) -> None:
    """A folder whose name is no UTF-8: it is used as it is, printed and written as JSON."""
    out = os.fsdecode(b"k\xe4se")
    args = ["generate", "red apple", "--model", str(tiny_model), "--seed", "1", "--out", out]
    assert main(args) == 0
    assert os.listdir(b"k\xe4se") == [b"red-apple-1.png"]
    assert main([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["pictures"][0]["path"] == f"{out}/red-apple-1-2.png"
    assert json.loads(json_bytes({"out": out, "ä": "ä"}).decode()) == {"out": out, "ä": "ä"}


def test_a_name_from_another_locale_is_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nameable(Path("ä")) == Path("ä")
    decode, encode = locale("ascii")
    monkeypatch.setattr(os, "fsencode", lambda path: encode(str(path)))  # type: ignore[operator]
    monkeypatch.setattr(os, "fsdecode", decode)
    assert encode(str(nameable(Path("x/ä")))) == "x/ä".encode()  # type: ignore[operator]


# widths


@pytest.mark.parametrize("columns", ["0", "1", "2", "3", "4", "-7", "1000000000", "wide"])
def test_help_fits_any_terminal(columns: str, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as stop:
        main(["inspect", "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "--depth" in said
    assert len(said) < 20_000
    assert max(map(len, said.splitlines())) <= 240
    assert os.environ["COLUMNS"] == columns


@pytest.mark.slow
@pytest.mark.parametrize("verb", sorted(VERBS.keys() - {"train"}))
def test_help_of_every_verb_in_one_column(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    monkeypatch.setenv("COLUMNS", "1")
    with pytest.raises(SystemExit):
        main([*verb.split(), "--help"])
    said = capsys.readouterr().out
    assert re.search(r"--\w+|options", said)
    assert len(said) < 50_000


def test_prompts_from_a_closed_input(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    class Closed(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(Closed())))
    assert main(["generate", "--prompts", "-"]) == 1
    assert capsys.readouterr().err == (
        "unnoise: the standard input cannot be read (it is closed); name a file of prompts\n"
    )
