"""Files of published models that were broken or built to harm: one clear line each, and nothing is run or written."""

# ruff: noqa: E501
from __future__ import annotations

import json
import os
import random
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from small_models import single_file
from unnoise.cli.main import main
from unnoise.errors import UnnoiseError
from unnoise.inspection.look import look
from unnoise.weights.opening import open_model
from weights.mutants import SCHEDULE, Models, write_header

TESTS = Path(__file__).resolve().parent.parent
Make = Callable[[Models, Path], Path]
FIRST = "model.diffusion_model.input_blocks.0.0.weight"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


def header(change: Callable[[dict[str, Any]], object], models: Models, place: Path) -> Path:
    """A single file whose header was changed."""
    copy = json.loads(json.dumps(models.header))
    change(copy)
    return write_header(place / "m.safetensors", copy, models.room)


def raw(make: Callable[[bytes], bytes], models: Models, place: Path) -> Path:
    """A single file whose header's text was changed."""
    return write_header(place / "m.safetensors", make(json.dumps(models.header).encode()), models.room)


def record(file: str, change: dict[str, Any] | bytes, models: Models, place: Path) -> Path:
    """A folder of which a JSON file has other values, or is other bytes."""
    folder = models.copy(place / "m")
    target = folder / file
    if isinstance(change, bytes):
        target.write_bytes(change)
    else:
        target.write_text(json.dumps({**json.loads(target.read_text()), **change}))
    return folder


def index(change: Callable[[Models, Path], str], models: Models, place: Path) -> Path:
    """A folder whose index of shards names something else."""
    folder = models.copy(place / "m")
    name = change(models, folder / "unet")
    table = json.loads(models.index.read_text())
    first = next(iter(table["weight_map"]))
    table["weight_map"][first] = name
    (folder / "unet" / models.index.name).write_text(json.dumps(table))
    return folder


def linked(target: Path | str, _: Models, unet: Path) -> str:
    """A shard's name that is a link to somewhere."""
    (unet / "link.safetensors").symlink_to(target)
    return "link.safetensors"


def pipe(_: Models, unet: Path) -> str:
    """A shard's name that is a named pipe."""
    os.mkfifo(unet / "pipe.safetensors")
    return "pipe.safetensors"


def beside(name: str, size: int, models: Models, place: Path) -> Path:
    """A single file with a large file beside it, which is a hole."""
    path = write_header(place / "m.safetensors", models.header, models.room)
    (place / name).touch()
    os.truncate(place / name, size)
    return path


def many(count: int, models: Models, place: Path) -> Path:
    """A header with very many tensors of no size."""
    more = {f"a.{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(count)}
    return write_header(place / "m.safetensors", {**models.header, **more}, models.room)


def pickled(models: Models, place: Path) -> Path:
    """A pickle under a wrong name."""
    torch.save({"state_dict": {}}, place / "m.safetensors")
    return place / "m.safetensors"


def written(name: str, data: bytes, _: Models, place: Path) -> Path:
    """A file of these bytes."""
    (place / name).write_bytes(data)
    return place / name


def tokenizer(name: str, data: bytes | int, models: Models, place: Path) -> Path:
    """A folder with a tokenizer's file, of these bytes or this size."""
    folder = models.copy(place / "m")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / name).write_bytes(data if isinstance(data, bytes) else b"{")
    if isinstance(data, int):
        os.truncate(folder / "tokenizer" / name, data)
    return folder


def gguf(change: Callable[[bytes], bytes], models: Models, place: Path) -> Path:
    """A GGUF file whose header was changed."""
    path = place / "m.gguf"
    path.write_bytes(change(models.gguf.read_bytes()[: models.gguf_head]))
    os.truncate(path, models.gguf.stat().st_size)
    return path


def bare(models: Models, place: Path) -> Path:
    """A GGUF file that claims 2^60 tensors."""
    return gguf(lambda data: data[:8] + struct.pack("<Q", 2**60) + data[16:], models, place)


def put(key: str, **values: Any) -> Make:
    return partial(header, lambda h: h[key].update(values))


UNET, VAE, TEXT = "unet/config.json", "vae/config.json", "text_encoder/config.json"
PLAN, PIPELINE = "scheduler/scheduler_config.json", "model_index.json"
DEEP = b"[" * 100_000 + b"]" * 100_000
CASES: dict[str, tuple[Make, str]] = {  # what must come of it: "opened", or what the line says
    "whole file": (lambda m, p: m.file, "opened"),
    "whole folder": (lambda m, p: m.copy(p / "m"), "opened"),
    "whole gguf": (partial(gguf, lambda data: data), "opened"),
    "cut short": (lambda m, p: cut(write_header(p / "m.safetensors", m.header, m.room), 100), "cut short"),
    "cut in the header": (lambda m, p: cut(write_header(p / "m.safetensors", m.header, m.room), m.room + 9), "cut short"),
    "overlapping": (put(FIRST, data_offsets=[0, 32 * 4 * 9 * 2]), "overlap|bytes"),
    "offsets backwards": (put(FIRST, data_offsets=[10, 0]), "damaged"),
    "offsets negative": (put(FIRST, data_offsets=[-10, 0]), "has no shape"),
    "offsets of 2^62": (put(FIRST, data_offsets=[2**62, 2**62]), "has no shape"),
    "header of 2^60": (partial(written, "m.safetensors", struct.pack("<Q", 2**60) + b"{" + b" " * 99), "cut short"),
    "header of 20 MB": (lambda m, p: write_header(p / "m.safetensors", b"{" + b" " * 20_000_000, 0), "claims"),
    "header nested": (partial(raw, lambda text: b'{"a": ' + DEEP + b"}"), "damaged"),
    "header a list": (partial(raw, lambda text: b'["a"]'), "damaged|cut short|not safetensors"),
    "header not UTF-8": (partial(raw, lambda text: text[:20] + b"\xff" + text[20:]), "damaged"),
    "header with NaN": (partial(raw, lambda text: text.replace(b'"shape": [32, 4', b'"shape": [NaN, 4', 1)), "damaged"),
    "keys twice": (partial(raw, lambda text: text[:-1] + b', ' + text[1:]), "twice"),
    "wrong shape": (put(FIRST, shape=[4, 32, 3, 3]), "channels|shape|U-Net for"),
    "shape of 0": (put(FIRST, shape=[0, 4, 3, 3], data_offsets=[0, 0]), "shape|damaged|overlap"),
    "shape of 2^53": (put(FIRST, shape=[2**53, 4, 3, 3]), "has no shape"),
    "shape of 2^52": (put(FIRST, shape=[2**52, 4, 3, 3]), "damaged"),
    "shape of strings": (put(FIRST, shape=["a"]), "damaged"),
    "unknown type": (put(FIRST, dtype="Q9_Z\x1b[2J"), "cannot be drawn with|damaged"),
    "type is a list": (put(FIRST, dtype=["F16"]), "damaged"),
    "missing keys": (partial(header, lambda h: [h.pop(k) for k in list(h) if k.endswith("out.2.bias")]), "lacks out.2.bias"),
    "strange keys": (partial(header, lambda h: h.update({"model.diffusion_model.\x1b[2J": h[FIRST]})), "unknown|overlap"),
    "path in a name": (partial(header, lambda h: h.update({"../../etc/x": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}})), "opened"),
    "a name of 10^6": (partial(header, lambda h: h.update({"a" * 10**6: {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}})), "characters"),
    "10^5 tensors": (partial(many, 100_000), "opened|claims"),
    "metadata of numbers": (partial(header, lambda h: h.update({"__metadata__": {"a": 1}})), "metadata"),
    "a pickle in disguise": (pickled, "can run code"),
    "a bare pickle in disguise": (partial(written, "m.safetensors", b"\x80\x04cos\nsystem\n(S'x'\ntR."), "can run code|cut short"),
    "empty": (partial(written, "m.safetensors", b""), "empty"),
    "a page": (partial(written, "m.safetensors", b"<!DOCTYPE html><html>"), "a web page"),
    "index outside": (partial(index, lambda m, u: "../../x.safetensors"), "no file beside it"),
    "index absolute": (partial(index, lambda m, u: "/etc/passwd"), "no file beside it"),
    "index to itself": (partial(index, lambda m, u: m.index.name), "no file beside it"),
    "index to a link out": (partial(index, partial(linked, "/etc/passwd")), "link.safetensors"),
    "index to a link to itself": (partial(index, partial(linked, "link.safetensors")), "lacks link.safetensors"),
    "index to a pipe": (partial(index, pipe), "lacks pipe.safetensors"),
    "index to a device": (partial(index, partial(linked, "/dev/zero")), "lacks link.safetensors"),
    "index with a null byte": (partial(index, lambda m, u: "a\0.safetensors"), "no file beside it|lacks"),
    "index of numbers": (partial(record, f"unet/{'diffusion_pytorch_model.safetensors.index.json'}", {"weight_map": {"a": 1}}), "no file beside it"),
    "index of 2000 files": (partial(record, "unet/diffusion_pytorch_model.safetensors.index.json", {"weight_map": {f"a{n}": f"{n}.safetensors" for n in range(2000)}}), "no index"),
    "10^9 channels": (partial(record, UNET, {"block_out_channels": [10**9, 10**9]}), "config.json|1000000000"),
    "10^6 channels": (partial(record, UNET, {"block_out_channels": [10**6, 10**6]}), "shape|lacks|config"),
    "10^9 channels in": (partial(record, UNET, {"in_channels": 10**9}), "1000000000"),
    "depth 10^6": (partial(record, UNET, {"transformer_layers_per_block": 10**6}), "out of range"),
    "depths 10^6": (partial(record, UNET, {"transformer_layers_per_block": [10**6, 10**6]}), "out of range"),
    "10^6 blocks": (partial(record, UNET, {"layers_per_block": 10**6}), "out of range"),
    "10^6 levels": (partial(record, UNET, {"block_out_channels": [1] * 10**6}), "config"),
    "64 levels": (partial(record, UNET, {"block_out_channels": [8] * 64, "down_block_types": ["DownBlock2D"] * 64, "up_block_types": ["UpBlock2D"] * 64}), "64 levels, out of range"),
    "no levels": (partial(record, UNET, {"block_out_channels": []}), "config"),
    "negative": (partial(record, UNET, {"layers_per_block": -5}), "not|blocks"),
    "zero heads": (partial(record, UNET, {"attention_head_dim": 0}), "heads|config|describe"),
    "zero groups": (partial(record, UNET, {"norm_num_groups": 0}), "groups|describe|config"),
    "31 groups": (partial(record, UNET, {"norm_num_groups": 31}), "groups|describe|divisible"),
    "a float": (partial(record, UNET, {"in_channels": 4.5}), "4.5"),
    "a string": (partial(record, UNET, {"cross_attention_dim": "x"}), "'x'"),
    "kinds are numbers": (partial(record, UNET, {"down_block_types": [1, 2]}), "blocks"),
    "kinds are a number": (partial(record, UNET, {"up_block_types": 5}), "blocks"),
    "config of a million numbers": (partial(record, UNET, {"cross_attention_dim": [1] * 10**6}), "config|prompts|1"),
    "config nested": (partial(record, UNET, b'{"a": ' + DEEP + b"}"), "damaged"),
    "config with NaN": (partial(record, UNET, {"in_channels": float("nan")}), "nan"),
    "config a list": (partial(record, UNET, b"[]"), "no record"),
    "config not UTF-8": (partial(record, UNET, b'{"a": "\xff"}'), "damaged"),
    "autoencoder 10^6": (partial(record, VAE, {"layers_per_block": 10**6}), "out of range"),
    "autoencoder NaN": (partial(record, VAE, {"scaling_factor": float("nan")}), "finite|nan"),
    "autoencoder 0": (partial(record, VAE, {"scaling_factor": 0.0}), "scal"),
    "tower 10^6": (partial(record, TEXT, {"num_hidden_layers": 10**6}), "out of range"),
    "tower -1": (partial(record, TEXT, {"num_hidden_layers": -1}), "not|layers|unknown"),
    "tower's end": (partial(record, TEXT, {"eos_token_id": [1, 2]}), "end"),
    "tower's heads": (partial(record, TEXT, {"num_attention_heads": 7}), "heads|divide"),
    "classes of others": (partial(record, PIPELINE, {"unet": ["subprocess", "Popen"], "vae": ["antigravity", "fly"]}), "opened"),
    "classes are numbers": (partial(record, PIPELINE, {"_class_name": 5, "unet": 7}), "no known family"),
    "pipeline nested": (partial(record, PIPELINE, DEEP), "damaged"),
    "offset 10^9": (partial(record, PLAN, {"steps_offset": 10**9}), "steps_offset"),
    "offset x": (partial(record, PLAN, {"steps_offset": "x"}), "steps_offset"),
    "offset -1": (partial(record, PLAN, {"steps_offset": -1}), "steps_offset"),
    "beta -1": (partial(record, PLAN, {"beta_start": -1}), "beta_start|beta"),
    "beta NaN": (partial(record, PLAN, {"beta_start": float("nan")}), "beta"),
    "beta x": (partial(record, PLAN, {"beta_start": "x"}), "beta"),
    "beta ends before": (partial(record, PLAN, {"beta_start": 0.5, "beta_end": 0.1}), "beta|opened"),
    "10^12 levels": (partial(record, PLAN, {"num_train_timesteps": 10**12}), "num_train_timesteps"),
    "500 levels": (partial(record, PLAN, {"num_train_timesteps": 500}), "num_train_timesteps"),
    "lcm x": (partial(record, PLAN, {"_class_name": "LCMScheduler", "original_inference_steps": "x"}), "original_inference_steps"),
    "lcm 10^9": (partial(record, PLAN, {"_class_name": "LCMScheduler", "original_inference_steps": 10**9}), "original_inference_steps"),
    "scheduler of many lists": (partial(record, PLAN, {"prediction_type": [["v"]] * 1000}), "prediction"),
    "yaml of 1 GB": (partial(beside, "m.yaml", 10**9), "opened"),
    "config of 1 GB": (lambda m, p: huge(m.copy(p / "m") / UNET), "larger|damaged"),
    "merges damaged": (partial(tokenizer, "tokenizer.json", b'{"model": 3}'), "tokenizer|vocabulary"),
    "tokenizer of 1 GB": (partial(tokenizer, "tokenizer.json", 10**9), "tokenizer|vocabulary|JSON"),
    "tokenizer nested": (partial(tokenizer, "tokenizer.json", DEEP), "tokenizer|vocabulary"),
    "gguf of 2^60": (bare, "claims"),
    "gguf cut": (lambda m, p: cut(gguf(lambda data: data, m, p), 1000), "cut short"),
    "gguf length": (partial(gguf, lambda data: data[:24] + struct.pack("<Q", 2**62) + data[32:]), "ends in its header"),
    "gguf version": (partial(gguf, lambda data: data[:4] + b"\x09\0\0\0" + data[8:]), "version 9"),
    "gguf names twice": (partial(gguf, lambda data: data[:8] + struct.pack("<Q", 2) + data[16:24] + 2 * one_tensor(data)), "two tensors"),
    "gguf type": (partial(gguf, lambda data: data.replace(struct.pack("<I", 1) + struct.pack("<Q", 0), struct.pack("<I", 12) + struct.pack("<Q", 0), 1)), "quantised|two tensors"),
}  # fmt: skip


def one_tensor(data: bytes) -> bytes:
    length = struct.unpack("<Q", data[24:32])[0]
    dims = struct.unpack("<I", data[32 + length : 36 + length])[0]
    return data[24 : 36 + length + 8 * dims + 12]


def cut(path: Path, count: int) -> Path:
    os.truncate(path, path.stat().st_size - count)
    return path


def huge(path: Path) -> Path:
    os.truncate(path, 10**9)
    return path.parent.parent


def opened_in_a_child(paths: list[Path], environment: Path) -> list[Any]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "UNNOISE_HOME": str(environment)}
    run = subprocess.run(
        [sys.executable, str(TESTS / "weights/opening_child.py")],
        input=json.dumps([str(path) for path in paths]), capture_output=True, text=True, env=env, timeout=280,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    results: list[Any] = json.loads(run.stdout.splitlines()[-1])
    return results


def tree(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in root.rglob("*")}


@pytest.mark.parametrize("case", [case for case in list(CASES)[::9] if "token" not in case and "10^5" not in case])
def test_some_end_in_one_line(case: str, models: Models, tmp_path: Path) -> None:
    make, expected = CASES[case]
    assert re.search(expected, outcome_of(make(models, tmp_path)) or "opened")


@pytest.mark.slow
def test_each_ends_in_one_line_and_nothing_is_run_or_written(models: Models, tmp_path: Path) -> None:
    """In a process of its own, with 3 GB of memory besides the libraries'."""
    paths = []
    for number, (make, _) in enumerate(CASES.values()):
        place = tmp_path / str(number)
        place.mkdir()
        paths.append(make(models, place))
    before = tree(tmp_path)
    results = opened_in_a_child(paths, tmp_path / "home")
    assert tree(tmp_path) == before
    faults = []
    for (case, (_, expected)), ((opening, heard), (looking, more)) in zip(CASES.items(), results, strict=True):
        wanted = expected.startswith("opened") and opening == "opened"
        if not wanted and not (opening.startswith("UnnoiseError: ") and re.search(expected, opening)):
            faults.append(f"{case}: {opening[:300]}")
        if looking != "opened" and not looking.startswith("UnnoiseError: "):
            faults.append(f"{case}, inspected: {looking[:300]}")
        if heard or more:
            faults.append(f"{case}: {heard} {more}")
        if not (opening + looking).isprintable():
            faults.append(f"{case}: control characters in {opening!r}")
    assert not faults, "\n".join(faults)


def test_the_ear_hears(tmp_path: Path) -> None:
    """The negative control: what must not happen is noticed."""
    script = (
        "import sys; sys.path[:0] = {paths!r}\nimport weights.opening_child as child\nsys.addaudithook(child.listen)\n"
        "child.listening = True\nopen({file!r}, 'w').close()\nimport antigravity_of_nobody\n"
    )
    code = script.format(paths=sys.path, file=str(tmp_path / "x")).replace(
        "import antigravity_of_nobody", "\ntry:\n    import antigravity_of_nobody\nexcept ImportError:\n    pass\n"
    )
    code += "import os; os.system('true'); child.listening = False; print(len(child.events), child.events)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.startswith("3 "), run.stdout


def outcome_of(path: Path) -> str:
    """What comes of a mutant: a whole model, or one line."""
    try:
        opened = open_model(path)
    except UnnoiseError as error:
        line = str(error)
    else:
        assert opened.matched == sum(len(part.rows) for part in opened.parts.values())
        line = ""
    try:
        look(path)
        seen = "x"
    except UnnoiseError as error:
        seen = str(error)
    assert seen
    assert (line + seen).isprintable()
    return line


def fuzz(models: Models, place: Path, seeds: range) -> dict[str, int]:
    counts = {"whole": 0, "refused": 0}
    for seed in seeds:
        path = models.mutant(seed, place)
        try:
            counts["refused" if outcome_of(path) else "whole"] += 1
        except Exception as error:
            error.add_note(f"seed {seed}: {path}")
            raise
    return counts


def test_some_mutants(models: Models, tmp_path: Path) -> None:
    counts = fuzz(models, tmp_path, range(12))
    assert counts["refused"] > 3


@pytest.mark.slow
def test_more_mutants(models: Models, tmp_path: Path) -> None:
    counts = fuzz(models, tmp_path, range(100, 160))
    assert counts["refused"] > 30
    assert counts["whole"] > 2


@pytest.mark.soak
def test_many_mutants(models: Models, tmp_path: Path) -> None:
    start = random.randrange(2**40)
    print(f"\n{fuzz(models, tmp_path, range(start, start + 4000))} from seed {start}")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(sorted(SCHEDULE)), value=VALUES)
def test_any_value_of_a_scheduler(key: str, value: Any) -> None:
    from unnoise.core.notation import make
    from unnoise.weights.schedules import read_schedule

    try:
        found = read_schedule({**SCHEDULE, key: value}, "here")
    except UnnoiseError:
        return
    make("paths", found["path"])  # what is read can be made
    if "spacing" in found:
        make("spacings", found["spacing"])


@pytest.mark.slow
def test_a_run_with_numbers_that_are_not_finite_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.safetensors"
    single_file(path, "sd1")
    tensors = load_file(path)
    tensors["model.diffusion_model.out.2.bias"][0] = float("nan")
    save_file(tensors, path)
    out = tmp_path / "out"
    command = ["generate", "a", "--model", str(path), "--steps", "2", "--size", "64", "--out", str(out)]
    assert main(command) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search("NaN|not finite|infinit", last), last
    assert not list(out.rglob("*.png")) if out.exists() else True
