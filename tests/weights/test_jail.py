"""Weights out of pickles: every bit of them arrives, nothing of the file runs, and no half of a file is left."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unnoise.cli.main import main
from unnoise.errors import UnnoiseError
from unnoise.weights import jail, jailed, rewrite, stores
from unnoise.weights.jail import command, unpack
from weights import foreign_files as made
from weights import hostile as ear


def tried(path: Path, dtype: str = "keep", key: str = "") -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """(what the process in jail would answer, the tensors that it wrote): within this process, where ears are."""
    target = path.with_name(f"{path.name}.safetensors")
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    ear.heard.clear()
    ear.listening = True
    try:
        answer = jailed.answer(path, handle, dtype, key)
    finally:
        ear.listening = False
        os.close(handle)
    assert not ear.heard
    return answer, load_file(target) if "refused" not in answer else {}


def refusal(path: Path, key: str = "") -> str:
    """Why a file is refused: one line."""
    answer, _ = tried(path, key=key)
    line = "; ".join(answer["refused"])
    assert line.isprintable()
    return line


def written(tmp_path: Path, data: bytes, name: str = "model.pt") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


# what is read


@pytest.mark.parametrize("legacy", [False, True])
def test_every_bit_arrives(legacy: bool, tmp_path: Path) -> None:
    weights = made.weights()
    if legacy:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("d.")}
    answer, tensors = tried(written(tmp_path, made.saved(weights, legacy)))
    assert "refused" not in answer
    assert list(answer["tensors"]) == list(weights)
    assert tensors.keys() == weights.keys()
    assert [name for name in weights if not made.same(tensors[name], weights[name])] == []


def test_the_process_in_jail_does_the_same(tmp_path: Path) -> None:
    weights = made.weights()
    result = unpack(written(tmp_path, made.saved(weights)), tmp_path / "out.safetensors")
    tensors = load_file(tmp_path / "out.safetensors")
    assert [name for name in weights if not made.same(tensors[name], weights[name])] == []
    assert list(result.header.tensors) == list(weights)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pt", "out.safetensors"]


def test_a_dense_copy_is_not_what_is_written(tmp_path: Path) -> None:
    """The control of ``same``: another type, another order or one other bit is noticed."""
    t = torch.arange(6.0).reshape(2, 3)
    assert made.same(t, t.clone())
    assert not made.same(t, t.double())
    assert not made.same(t, t.reshape(3, 2))
    assert not made.same(torch.tensor([0.0]), torch.tensor([-0.0]))


@pytest.mark.parametrize("place", ["cuda:0", "mps"])
def test_devices_that_are_not_here(place: str, tmp_path: Path) -> None:
    data = made.with_pickle(
        lambda p: p.replace(b"X\x03\x00\x00\x00cpu", b"X" + len(place).to_bytes(4, "little") + place.encode())
    )
    assert place.encode() in data
    _, tensors = tried(written(tmp_path, data))
    assert torch.equal(tensors["w"], torch.arange(6.0).reshape(2, 3))


def test_chunks_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage that is read in many parts gives the same numbers, whatever its tensors' order and type."""
    weights = made.weights(1)
    for module in (stores, rewrite):
        monkeypatch.setattr(module, "CHUNK", 8)
    for dtype in ("keep", "float32"):
        _, tensors = tried(written(tmp_path, made.saved(weights)), dtype)
        for name, tensor in weights.items():
            real = dtype != "keep" and tensor.dtype in (torch.float16, torch.bfloat16, torch.float64)
            assert made.same(tensors[name], tensor.float() if real else tensor), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("source", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_types_are_rounded_as_torch_rounds(source: torch.dtype, dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.randn(4000, dtype=torch.float64) * 10.0 ** torch.randint(-9, 4, (4000,))
    ties = torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-11, float("nan"), float("inf"), 0.0, -0.0])
    values = torch.cat([values, ties.double()]).to(source)
    _, tensors = tried(written(tmp_path, made.saved({"w": values, "step": torch.tensor(7)})), str(dtype)[6:])
    expected = values.to(dtype)
    number = ~expected.isnan()
    assert torch.equal(number, ~tensors["w"].isnan())
    assert made.same(tensors["w"][number], expected[number])
    assert tensors["step"].dtype == torch.int64


def test_a_number_out_of_range_is_no_infinity(tmp_path: Path) -> None:
    path = written(tmp_path, made.saved({"w": torch.tensor([1.0, 7e4]), "v": torch.tensor([math.inf])}))
    answer, _ = tried(path, "float16")
    assert "w has numbers that float16 cannot hold; choose another --dtype" in "; ".join(answer["refused"])
    assert torch.isinf(tried(path, "bfloat16")[1]["v"]).all()


# which record is taken

OPTIMISER, EMBEDDING = [{"m": 4}], {"string_to_token": {"*": 265.5}, "string_to_param": {"*": 1}, "name": "x"}
NESTED = {  # (what is saved, the record that is taken, its tensors, what is left out)
    "state_dict": (
        {"state_dict": {"w": 1, "b": 2}, "epoch": 3.5, "optimizer_states": OPTIMISER},
        "state_dict", ["w", "b"], ["epoch", "optimizer_states"],
    ),
    "twice": (
        {"model": {"state_dict": {"w": 1}, "args": {"lr": 0.1}}, "step": 0},
        "model.state_dict", ["w"], ["step", "model.args"],
    ),
    "ema": ({"params": {"w": 1}, "params_ema": {"w": 2}}, "params_ema", ["w"], ["params"]),
    "parts": ({"unet": {"w": 1}, "vae": {"w": 2}}, "", ["unet.w", "vae.w"], []),
    "bare with a state": (
        {"w": 1, "b": 2, "optimizer": {"m": 3}, "name": "x"},
        "", ["w", "b"], ["optimizer", "name"],
    ),
    "an embedding": (EMBEDDING, "", ["string_to_param.*"], ["string_to_token.*", "name"]),
    "a layer called model": ({"model": 1, "b": 2}, "", ["model", "b"], []),
    "a tensor": (1, "", ["tensor"], []),
    "a list": ([1, 2], "", ["0", "1"], []),
    "whole numbers": ({0: 1, 1: 2}, "", ["0", "1"], []),
}  # fmt: skip


def planted(value: Any) -> Any:
    """The same with tensors in place of whole numbers."""
    if isinstance(value, dict):
        return {key: planted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [planted(inner) for inner in value]
    return torch.full((2,), float(value)) if type(value) is int else value


@pytest.mark.parametrize("case", NESTED)
def test_records(case: str, tmp_path: Path) -> None:
    value, taken, names, left = NESTED[case]
    answer, tensors = tried(written(tmp_path, made.saved(planted(value))))
    assert (answer["taken"], sorted(tensors), answer["left"]) == (taken, sorted(names), left)
    assert answer["listed"] == isinstance(value, list)


TRAINING = {
    "model_state_dicts": {"energy.model": {"w": torch.ones(2)}, "other": {"w": torch.zeros(3)}},
    "optimizer_state_dicts": {"o": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}},
    "epoch": 7,
}


def test_a_training_of_an_unknown_model(tmp_path: Path) -> None:
    path = written(tmp_path, made.saved(TRAINING))
    line = refusal(path)
    assert "a training's checkpoint of an unknown model, nested in dictionaries: model_state_dicts, optimizer" in line
    assert "--key model_state_dicts.energy.model or --key model_state_dicts.other" in line
    answer, tensors = tried(path, key="model_state_dicts.energy.model")
    assert (answer["taken"], list(tensors)) == ("model_state_dicts.energy.model", ["w"])
    assert "has no record nothing; one of: model_state_dicts, optimizer_state_dicts" in refusal(path, "nothing")
    assert "has no record no; one of: energy.model, other" in refusal(path, "model_state_dicts.no")


def test_no_tensors(tmp_path: Path) -> None:
    assert "holds no tensors: an empty dictionary" in refusal(written(tmp_path, made.saved({})))
    assert "holds no tensors: a, b" in refusal(written(tmp_path, pickle.dumps({"a": 1, "b": [2, "x"]}), "x.pkl"))


def test_a_dictionary_of_parameters(tmp_path: Path) -> None:
    embedding = {"string_to_param": torch.nn.ParameterDict({"*": torch.ones(2, 768)}), "step": 3}
    _, tensors = tried(written(tmp_path, made.saved(embedding)))
    assert made.same(tensors["string_to_param.*"], torch.ones(2, 768))


def test_what_trainers_leave_behind(tmp_path: Path) -> None:
    """A record of Lightning's is named, and neither imported nor made."""
    callback = b"}cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\nN\x73"
    data = made.with_pickle(lambda p: p[:-1].replace(b"X\x01\x00\x00\x00w", callback + b"0X\x01\x00\x00\x00w") + b".")
    answer, tensors = tried(written(tmp_path, data))
    assert list(tensors) == ["w"], answer
    other = made.with_pickle(lambda p: p[:-1] + b"0cstranger.module\nThing\n.")
    assert "needs code of other programs, which is not run here: stranger.module.Thing" in refusal(
        written(tmp_path, other)
    )


# traps


@pytest.mark.parametrize("kind", made.traps())
def test_traps_are_named(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data, call = made.traps()[kind]
    line = refusal(written(tmp_path, data))
    assert "is a trap" in line
    assert call in line
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("kind", made.untried_traps())
def test_traps_that_wait_are_named(kind: str, tmp_path: Path) -> None:
    data, call = made.untried_traps()[kind]
    line = refusal(written(tmp_path, data))
    assert ("needs code of other programs" if "extension" in kind else "is a trap") in line
    assert call in line


OPEN = """
import os, pickle, sys, warnings
heard = []
sys.addaudithook(lambda event, args: heard.append(event))
warnings.simplefilter("ignore")
import torch
for folder in sys.argv[1:]:
    os.chdir(folder)
    before = len(heard)
    for load in (lambda: torch.load("model.pt", weights_only=False), lambda: pickle.load(open("model.pt", "rb"))):
        try:
            load()
        except Exception:
            pass
    print("pickle.find_class" in heard[before:] and os.path.exists("boom"))
"""


@pytest.mark.slow
def test_the_traps_are_real(tmp_path: Path) -> None:
    """The control: each, opened on purpose as pickles are, is heard, and touches its file."""
    folders = []
    for index, (data, _) in enumerate(made.traps().values()):
        folders.append(tmp_path / str(index))
        folders[-1].mkdir()
        written(folders[-1], data)
    done = subprocess.run([sys.executable, "-c", OPEN, *map(str, folders)], capture_output=True, text=True)
    assert dict(zip(made.traps(), done.stdout.split(), strict=True)) == dict.fromkeys(made.traps(), "True"), done


# the process in jail

REACHES = {
    "a socket": "import socket",
    "a socket of a module that is there": "import _socket",
    "another program": "os.system('touch boom')",
    "a child": "os.fork()",
    "another file": "open('/etc/hostname')",
    "a new file": "open('boom', 'w')",
    "its own file, to write": "open(source, 'r+')",
    "a module": "import colorsys",
    "the list of a folder": "os.listdir('.')",
    "code": "exec('1')",
    "the environment": "os.putenv('A', 'b')",
    "a file's removal": "os.unlink(source)",
    "memory": "import ctypes",
    "a signal": "os.kill(os.getppid(), 0)",
}


def confined(code: str, source: Path, memory: int = 2**32) -> subprocess.CompletedProcess[str]:
    """Runs code in a process that has given up what the one in jail gives up."""
    start = (
        "import sys; sys.path[:0] = sys.argv.pop(1).split(chr(0x1f)); import os; from unnoise.weights import jailed; "
        f"source = sys.argv[1]; jailed.restrict({memory}, 60, 2**20); jailed.seal(source); {code}; print('free')"
    )
    words = command(str(source))
    words[words.index("-c") + 1] = start
    return subprocess.run(words, capture_output=True, text=True, cwd=source.parent)


@pytest.mark.parametrize(
    "reach", [each if index < 3 else pytest.param(each, marks=pytest.mark.slow) for index, each in enumerate(REACHES)]
)
def test_reaching_out_ends_the_process(reach: str, tmp_path: Path) -> None:
    source = written(tmp_path, b"here")
    done = confined(REACHES[reach], source)
    assert (done.returncode, done.stdout) == (jailed.CAUGHT, ""), done
    assert not (tmp_path / "boom").exists()


def test_the_process_may_read_its_file(tmp_path: Path) -> None:
    """The control: what it needs is not caught."""
    done = confined("print(open(source, 'rb').read())", written(tmp_path, b"here"))
    assert (done.returncode, done.stdout) == (0, "b'here'\nfree\n"), done


def test_memory_is_limited(tmp_path: Path) -> None:
    done = confined("bytearray(2**30)", written(tmp_path, b"here"), memory=2**29)
    assert "MemoryError" in done.stderr


def test_it_has_no_environment_and_no_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("open('boom', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "json.py"))
    unpack(written(tmp_path, made.saved({"w": torch.ones(2)})), tmp_path / "out.safetensors")
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    "code", ["import os; os._exit(3)", "raise SystemExit(0)", "print('{}')", "print('[1]')", "print('nonsense')"]
)
def test_a_process_that_says_nothing_leaves_nothing(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jail, "BEGIN", code)
    with pytest.raises(UnnoiseError, match="ended the process that read it"):
        unpack(written(tmp_path, made.saved({"w": torch.ones(2)})), tmp_path / "out.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("content", [b"", (2).to_bytes(8, "little") + b"{}"])
def test_a_process_that_lies_is_not_believed(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"form": "x", "taken": "", "left": [], "left_out": 0, "listed": False, "tensors": {"w": [3]}}
    code = f"import os, sys; os.write(int(sys.argv[3]), {content!r}); print({json.dumps(answer)!r})"
    monkeypatch.setattr(jail, "BEGIN", code)
    with pytest.raises(UnnoiseError, match=r"is empty|was not converted whole"):
        unpack(written(tmp_path, made.saved({"w": torch.ones(2)})), tmp_path / "out.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


# files that are damaged or lie


def zips() -> dict[str, tuple[Callable[[bytes], bytes], str]]:
    """{what is wrong: (what makes it so, why it is refused)}."""
    size, zero, one = 64 * 4, b"archive/data/0", b"archive/data/1"

    def with_entry(name: str, content: bytes) -> Callable[[bytes], bytes]:
        return lambda data: made.rezipped(data, lambda entries: entries.update({f"archive/{name}": content}))

    def without(name: str) -> Callable[[bytes], bytes]:
        return lambda data: made.rezipped(data, lambda entries: entries.pop(f"archive/{name}"))

    return {
        "another name in front": (made.mismatched, "damaged zip .File name in directory"),
        "another checksum": (made.flipped, "damaged zip .Bad CRC-32 for file 'archive/data/0'"),
        "overlapping": (lambda d: made.patched(d, zero, 20, "<II", size + 400, size + 400), "data/0 overlaps"),
        "two sizes": (lambda d: made.patched(d, zero, 24, "<I", size + 4), "archive/data/0 has two sizes"),
        "elsewhere": (lambda d: made.patched(d, one, 42, "<I", 5), "overlaps|is not where its directory has it"),
        "in the same place": (lambda d: made.patched(d, one, 42, "<I", d.index(zero) - 30), "data/. overlaps"),
        "encrypted": (lambda d: made.patched(d, zero, 8, "<H", 1), "encrypted or packed in an unusual way"),
        "an unusual method": (lambda d: made.patched(d, zero, 10, "<H", 12), "encrypted or packed in an unusual"),
        "no numbers": (without("data/0"), "the numbers of w are not in it"),
        "few numbers": (with_entry("data/1", b"1234"), "the numbers of v are not all in it"),
        "code": (with_entry("code/__torch__.py", b""), "TorchScript"),
        "two pickles": (with_entry("more.pkl", b"N."), "has 2 pickles"),
        "no pickle": (without("data.pkl"), "has 0 pickles"),
        "big-endian": (with_entry("byteorder", b"big"), "big-endian"),
        "cut short": (lambda d: d[:-100], "cut short|damaged"),
        "half": (lambda d: d[: len(d) // 2], "cut short|damaged"),
        "a huge directory": (made.vast, "its directory claims"),
    }


@pytest.mark.parametrize("case", zips())
def test_zips_that_lie(case: str, tmp_path: Path) -> None:
    change, why = zips()[case]
    line = refusal(written(tmp_path, change(made.saved({"w": torch.arange(64.0), "v": torch.arange(64.0, 128)}))))
    assert re.search(why, line), line


def test_packed_zips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is packed is read; a small file that unfolds to a large one is not."""
    data = made.rezipped(made.saved({"w": torch.zeros(2**18)}), lambda entries: None, zipfile.ZIP_DEFLATED)
    assert tried(written(tmp_path, data))[1]["w"].numel() == 2**18
    monkeypatch.setattr(rewrite, "SPARE", 2**16)
    assert "would unfold to 1,048,576 bytes from" in refusal(written(tmp_path, data))


def tensor(storage: str = "64", offset: str = "0", shape: str = "(2,)", strides: str = "(1,)") -> bytes:
    """The pickle of one tensor with other numbers than it should have."""

    class Storage:
        pass

    class Pickler(pickle._Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", eval(storage)) if isinstance(value, Storage) else None

    stream = io.BytesIO()
    call = made.Calls(torch._utils._rebuild_tensor_v2, Storage(), *map(eval, (offset, shape, strides)), False, {})
    Pickler(stream, 2).dump({"w": call})
    return stream.getvalue()


LIES = {
    "beyond": ({"offset": "63"}, "w reaches out of its storage"),
    "far beyond": ({"offset": "2**60"}, "w is no tensor that is read here"),
    "negative": ({"strides": "(-1,)"}, "w is no tensor that is read here"),
    "terabytes": ({"shape": "(2**40,)", "strides": "(0,)"}, "would unfold to 4,398,046,511,104 bytes"),
    "another number of axes": ({"strides": "(1, 1)"}, "w is no tensor that is read here"),
    "more than it holds": ({"storage": "2**40"}, ""),
    "text for numbers": ({"shape": "('x',)"}, "w is no tensor that is read here"),
    "not even a list": ({"strides": "5"}, "cut short or damaged"),
}


@pytest.mark.parametrize("case", LIES)
def test_tensors_that_lie(case: str, tmp_path: Path) -> None:
    changes, why = LIES[case]
    data = made.with_pickle(lambda _: tensor(**changes), {"w": torch.arange(64.0)})
    answer, tensors = tried(written(tmp_path, data))
    if not why:  # what it needs of the storage is there
        assert torch.equal(tensors["w"], torch.tensor([0.0, 1.0]))
        return
    assert why in "; ".join(answer["refused"])


def test_the_tensor_that_does_not_lie(tmp_path: Path) -> None:
    """The control."""
    data = made.with_pickle(lambda _: tensor(offset="3", strides="(5,)"), {"w": torch.arange(64.0)})
    assert torch.equal(tried(written(tmp_path, data))[1]["w"], torch.tensor([3.0, 8.0]))


def test_dictionaries_without_end(tmp_path: Path) -> None:
    """Lists that hold themselves, or each the one before twice, a hundred times."""
    assert "without end" in refusal(written(tmp_path, b"\x80\x02]q\x00h\x00a."))
    laughs = b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(100)) + b"."
    assert "without end" in refusal(written(tmp_path, laughs))


BARE = {
    "text": (b"just a few words\n", "is text .* and no file of weights|no kind that is known"),
    "JSON": (b'{"error": "not found"}', "is JSON text .*not found.* and no file of weights"),
    "a page": (b"<!DOCTYPE html><html>", "a web page"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "is PNG, and no file of weights"),
    "nothing": (b"", "is empty"),
    "half an instruction": (b"cmod\n\xf8\n", "no kind that is known here; it begins with"),
    "a long string": (b"\x80\x02X\xff\xff\xff\x7fabc", "cut short or damaged"),
    "an unknown instruction": (b"\x80\x02\xff.", "cut short or damaged"),
    "a huge place in memory": (b"\x80\x02Nr\xff\xff\xff\x7f.", "no tensors|holds no"),
    "what follows": (pickle.dumps({"a": 1}) + b"more", "4 bytes follow its end"),
}


@pytest.mark.parametrize("case", BARE)
def test_what_is_no_file_of_weights(case: str, tmp_path: Path) -> None:
    data, why = BARE[case]
    line = refusal(written(tmp_path, data))
    assert re.search(why, line), line


@pytest.mark.parametrize("cut", [0.02, 0.3, 0.6, 0.99])
def test_old_files_that_are_cut_short(cut: float, tmp_path: Path) -> None:
    data = made.saved({"w": torch.arange(99.0)}, legacy=True)
    line = refusal(written(tmp_path, data[: int(len(data) * cut)]))
    assert "cut short" in line or "ends before its end" in line or "does not agree" in line or "no kind" in line, line


def test_a_big_endian_old_file(tmp_path: Path) -> None:
    data = made.saved({"w": torch.ones(2)}, legacy=True)
    changed = data.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    assert changed != data
    assert "big-endian" in refusal(written(tmp_path, changed))


def test_a_file_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        data = made.saved({"w": torch.arange(5.0)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(tried(written(tmp_path, data))[1]["w"], torch.arange(5.0))


# the command


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(
        tmp_path, made.saved({"state_dict": {"w": torch.ones(2, 3)}, "epoch": 4, "optimizer": {"m": 1}}), "m.ckpt"
    )
    out = tmp_path / "sub" / "m.safetensors"
    assert main(["convert", str(path), "--out", str(out), "--dtype", "float16"]) == 0
    printed = capsys.readouterr().out
    assert "1 tensor, 6 numbers (F16 6) from a zip of torch.save" in printed
    assert "taken: state_dict" in printed
    assert "left out: epoch, optimizer" in printed
    assert load_file(out)["w"].dtype == torch.float16
    assert oct(out.stat().st_mode)[-3:] == "644"
    assert main(["convert", str(path), "--out", str(out)]) == 1
    assert "already exists; name another file" in capsys.readouterr().err
    assert main(["convert", str(path), "--out", str(tmp_path / "n.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["taken"] == "state_dict"
    assert main(["convert", str(path), "--out", str(tmp_path / "n.bin")]) == 1
    assert "call it n.safetensors" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "none.pt"), "--out", str(tmp_path / "o.safetensors")]) == 1
    assert "there is no file at" in capsys.readouterr().err
    assert main(["convert", str(tmp_path), "--out", str(tmp_path / "o.safetensors")]) == 1
    assert "is a folder; name a file in it" in capsys.readouterr().err


def test_a_trap_is_one_line_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, made.traps()["in a zip"][0])
    assert main(["convert", str(path), "--out", str(tmp_path / "new" / "er" / "o.safetensors")]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "is a trap: it would call posix.system; nothing in it was run" in message
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_safetensors_change_their_type(tmp_path: Path) -> None:
    save_file({"w": torch.arange(6.0), "n": torch.tensor([1])}, tmp_path / "a.safetensors")
    unpack(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "bfloat16")
    assert made.same(load_file(tmp_path / "b.safetensors")["w"], torch.arange(6.0).bfloat16())


MEASURE = """
import resource, sys
from pathlib import Path
from unnoise.weights.jail import unpack
unpack(Path(sys.argv[1]), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True])
def test_a_large_file_takes_little_memory(legacy: bool, tmp_path: Path) -> None:
    peaks = []
    for numbers in (2**10, 2**25):  # 128 MiB
        path = written(tmp_path, made.saved({"w": torch.zeros(numbers)}, legacy), f"{numbers}.pt")
        words = [sys.executable, "-c", MEASURE, str(path), str(tmp_path / f"{numbers}.safetensors")]
        peaks.append(int(subprocess.run(words, capture_output=True, text=True, check=True).stdout))
    most = 100 if legacy else 40  # MiB: a few chunks, and the beginning of an old file, where its pickles are
    assert peaks[1] - peaks[0] < most * 1024
