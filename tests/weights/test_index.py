"""The list of models: what lies in a folder is named by its headers, whoever arranged it, and little of it is read."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unnoise.cli.main import main
from unnoise.errors import UnnoiseError
from unnoise.weights import entry as entries_of
from unnoise.weights import index, quick, walk
from unnoise.weights.entry import Entry
from unnoise.weights.header import Header, read_header
from unnoise.weights.quick import BLOCK, BLOCKS, quick_hash
from unnoise.weights.roles import KINDS, PARTS, family_of, parts_of
from weights import written
from weights.written import SD1, SDXL, TAESD, cached, clip, diffusers_unet, diffusers_vae, sparse, unet, vae, write


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own."""
    monkeypatch.setenv("UNNOISE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def found(folder: Path) -> dict[str, Entry]:
    """{name: entry} of what adding a folder finds."""
    change = index.add(folder)
    names = [entry.name for entry in change.entries]
    assert len(set(names)) == len(names), names
    assert index.read_index().entries == {entry.path: entry for entry in change.entries}
    return {entry.name: entry for entry in change.entries}


def roles(folder: Path) -> dict[str, tuple[str, str]]:
    return {name: (entry.kind, entry.family) for name, entry in found(folder).items()}


FILES: list[tuple[dict[str, tuple[int, ...]], str, str]] = [
    (SD1, "checkpoint", "sd1"),
    (written.SD2, "checkpoint", "sd2"),
    (SDXL, "checkpoint", "sdxl"),
    (written.REFINER, "checkpoint", "sdxl-refiner"),
    (unet(768), "denoiser", "sd1"),
    (unet(768, "model.diffusion_model.", 9), "denoiser", "sd1"),
    (diffusers_unet(1024), "denoiser", "sd2"),
    (diffusers_unet(2048), "denoiser", "sdxl"),
    ({"double_blocks.0.a": (1,), "single_blocks.0.a": (1,)}, "denoiser", "flux1"),
    ({"transformer_blocks.0.img_mod.1.weight": (1,)}, "denoiser", "qwen-image"),
    (vae(), "autoencoder", "sd1 or sdxl"),
    (vae("first_stage_model.", 16), "autoencoder", "sd3 or flux1"),
    (diffusers_vae(), "autoencoder", "sd1 or sdxl"),
    (TAESD, "tiny autoencoder", "sd1 or sdxl"),
    (clip(768), "text encoder", "clip-l"),
    (clip(1280), "text encoder", "clip-g"),
    (written.openclip(1024), "text encoder", "clip-h"),
    ({"encoder.block.0.layer.0.SelfAttention.q.weight": (2, 2), "shared.weight": (2, 4096)}, "text encoder", "t5-xxl"),
    (written.LORA, "adapter", "sdxl"),
    ({"control_model.zero_convs.0.0.weight": (1,), "control_model.input_hint_block.0.weight": (1,)}, "other", ""),
    ({"<word>": (1, 768)}, "other", "sd1"),
    ({"a.weight": (1,)}, "other", ""),
]


@pytest.mark.parametrize(("shapes", "kind", "family"), FILES)
def test_the_role_of_a_file(shapes: dict[str, tuple[int, ...]], kind: str, family: str) -> None:
    assert family_of(Header({name: ("F16", shape) for name, shape in shapes.items()}, {}, 0)) == (kind, family)
    assert kind in KINDS


def test_every_family_of_models_has_a_role() -> None:
    """No row of the recognisers' table falls through to "other" unless it is no model, part or adapter."""
    from unnoise.weights.kinds import MODELS
    from unnoise.weights.roles import role

    apart = ("Adapter", "ontrol", "motion", "upscaler", "CLIP's image", "optimiser", "a part of an unnoise", "LLLite")
    for what, _ in MODELS:
        kind, _ = role(what, Header({}, {}, 0))
        assert (kind == "other") == any(word in what for word in apart), what


def test_parts_of_a_checkpoint() -> None:
    def of(shapes: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
        return parts_of(Header({name: ("F16", shape) for name, shape in shapes.items()}, {}, 0))

    assert of(SD1) == ("denoiser", "autoencoder", "text.clip-l")
    assert of(written.SD2) == ("denoiser", "autoencoder", "text.clip-h")
    assert of(SDXL) == tuple(part for part, _ in PARTS if part != "text.clip-h")
    assert of(written.REFINER) == ("denoiser", "autoencoder", "text.clip-g")


def test_a_folder_of_comfyui(tmp_path: Path) -> None:
    root = tmp_path / "models"
    write(root / "checkpoints/SDXL/juggernaut.safetensors", SDXL)
    write(root / "vae/sdxl_vae.safetensors", vae())
    write(root / "vae/vae-ft-mse-840000-ema-pruned.safetensors", vae())
    write(root / "vae/mine.safetensors", vae())
    write(root / "clip/clip_l.safetensors", clip(768))
    write(root / "loras/style.safetensors", written.LORA)
    (root / "checkpoints/put_checkpoints_here").touch()
    (root / "configs").mkdir()
    (root / "configs/v1-inference.yaml").write_text("model: 1")
    assert roles(root) == {
        "juggernaut": ("checkpoint", "sdxl"),
        "sdxl_vae": ("autoencoder", "sdxl"),
        "vae-ft-mse-840000-ema-pruned": ("autoencoder", "sd1"),
        "mine": ("autoencoder", "sd1 or sdxl"),
        "clip_l": ("text encoder", "clip-l"),
        "style": ("adapter", "sdxl"),
    }


def pipeline(root: Path, width: int = 2048, scale: float | None = 0.13025) -> Path:
    """A model in diffusers' layout."""
    parts = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    index = {"_class_name": "StableDiffusionXLPipeline", **parts, "text_encoder": ["transformers", "CLIPTextModel"]}
    index |= {"scheduler": ["diffusers", "EulerDiscreteScheduler"], "image_encoder": [None, None]}
    root.mkdir(parents=True)
    (root / "model_index.json").write_text(json.dumps(index))
    write(root / "unet/diffusion_pytorch_model.safetensors", diffusers_unet(width))
    write(root / "vae/diffusion_pytorch_model.safetensors", diffusers_vae())
    (root / "vae/config.json").write_text(json.dumps({} if scale is None else {"scaling_factor": scale}))
    write(root / "text_encoder/model.safetensors", clip(768))
    return root


def test_a_model_in_diffusers_layout(tmp_path: Path) -> None:
    root = pipeline(tmp_path / "base")
    write(root / "unet/diffusion_pytorch_model.fp16.safetensors", diffusers_unet(2048), 1)
    models = found(tmp_path)
    assert {name: (entry.kind, entry.family) for name, entry in models.items()} == {
        "base": ("checkpoint", "sdxl"),
        "base/unet": ("denoiser", "sdxl"),
        "base/unet.fp16": ("denoiser", "sdxl"),
        "base/vae": ("autoencoder", "sdxl"),
        "base/text_encoder": ("text encoder", "clip-l"),
    }
    whole = models["base"]
    assert (whole.path, whole.format) == (str(root), "diffusers")
    assert set(whole.parts) == {"unet", "vae", "text_encoder"}
    assert whole.bytes == sum(path.stat().st_size for path in root.rglob("*.safetensors"))


def test_an_autoencoder_of_no_mark_is_its_models(tmp_path: Path) -> None:
    pipeline(tmp_path / "old", 768, None)
    assert roles(tmp_path)["old/vae"] == ("autoencoder", "sd1")


def test_a_model_in_diffusers_layout_that_is_not_whole(tmp_path: Path) -> None:
    bare = pipeline(tmp_path / "bare")
    for file in bare.rglob("*.safetensors"):
        file.unlink()
    lacks = pipeline(tmp_path / "lacks")
    (lacks / "unet/diffusion_pytorch_model.safetensors").unlink()
    pickled = pipeline(tmp_path / "pickled")
    (pickled / "vae/diffusion_pytorch_model.safetensors").unlink()
    (pickled / "vae/diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
    models = found(tmp_path)
    assert "bare" not in models, "descriptions without weights are no model"
    assert (models["lacks"].kind, models["pickled"].kind) == ("broken", "pickle")
    assert models["lacks"].fault == "there are no weights for unet; download it again"
    assert models["pickled/vae"].kind == "pickle"


def test_shards(tmp_path: Path) -> None:
    root = pipeline(tmp_path / "base")
    (root / "unet/diffusion_pytorch_model.safetensors").unlink()
    tensors = list(diffusers_unet(2048).items())
    for number, part in enumerate((tensors[:2], tensors[2:]), 1):
        write(root / f"unet/diffusion_pytorch_model-0000{number}-of-00002.safetensors", dict(part))
    models = found(tmp_path)
    assert (models["base/unet"].kind, models["base/unet"].family) == ("denoiser", "sdxl")
    assert models["base/unet"].path == str(root / "unet")
    assert models["base"].kind == "checkpoint"
    write(root / "unet/diffusion_pytorch_model.fp16.safetensors", diffusers_unet(2048), 1)
    assert found(tmp_path)["base/unet"].path.endswith("diffusion_pytorch_model-00001-of-00002.safetensors")
    listing = root / "unet/diffusion_pytorch_model.safetensors.index.json"
    listing.write_text("{}")
    assert found(tmp_path)["base/unet"].path == str(listing), "beside another variant the index is the model"
    (root / "unet/diffusion_pytorch_model.fp16.safetensors").unlink()
    (root / "unet/diffusion_pytorch_model-00001-of-00002.safetensors").unlink()
    models = found(tmp_path)
    assert models["base/unet"].kind == models["base"].kind == "broken"
    assert "these are missing: 1" in models["base/unet"].fault


def test_the_cache_of_a_hub(tmp_path: Path) -> None:
    """Snapshots are links into a folder of blobs; each model is listed once, by its repository's name."""
    hub = tmp_path / "hub"
    listing = json.dumps({"_class_name": "P", "unet": ["diffusers", "U"], "vae": ["diffusers", "V"]})
    weights = "diffusion_pytorch_model.safetensors"
    cached(
        hub,
        "o/sd",
        {"model_index.json": listing, f"unet/{weights}": diffusers_unet(768), f"vae/{weights}": diffusers_vae()},
    )
    cached(hub, "o/sd", {f"unet/{weights}": diffusers_unet(768)}, "fedcba9876543210")
    (hub / "models--o--sd/refs/main").write_text("0123456789abcdef")
    cached(hub, "stabilityai/sd-vae-ft-mse", {weights: diffusers_vae()})
    cached(hub, "o/one", {"sdxl.safetensors": SDXL})
    write(hub / ".locks/models--o--sd/x.safetensors", SD1)
    write(hub / "datasets--o--set/snapshots/0123/x.safetensors", SD1)
    assert roles(hub) == {
        "o/sd": ("checkpoint", "sd1"),
        "o/sd/unet": ("denoiser", "sd1"),
        "o/sd/vae": ("autoencoder", "sd1"),
        "stabilityai/sd-vae-ft-mse": ("autoencoder", "sd1"),
        "o/one/sdxl": ("checkpoint", "sdxl"),
    }
    (hub / "models--o--sd/refs/main").unlink()
    assert {"o/sd@0123456789", "o/sd@fedcba9876/unet"} <= roles(hub).keys(), "where no branch is named, all are listed"


def test_models_of_ours(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "runs/mine/checkpoints/step-1").mkdir(parents=True)
    (tmp_path / "runs/mine/run.json").write_text("{}")
    write(tmp_path / "runs/mine/checkpoints/step-1/weights.safetensors", {"a.exp_avg": (1,)})
    (tmp_path / "runs/mine/model").symlink_to(tiny_model)
    (tmp_path / "web").mkdir()
    (tmp_path / "web/model.json").write_text('{"format": "layers-model"}')  # another program's
    write(tmp_path / "web/a.safetensors", SD1)
    models = found(tmp_path)
    assert {name: (e.kind, e.family) for name, e in models.items()} == {
        "mine": ("checkpoint", "unnoise"), "a": ("checkpoint", "sd1"),
    }  # fmt: skip
    assert models["mine"].parts == ("autoencoder", "text", "denoiser")


class Trap:
    """A pickle that makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_pickles_are_listed_and_never_opened(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    for name in ("a.ckpt", "b.pt", "c.pth", "d.bin", "e.safetensors", "f.pkl"):
        (tmp_path / name).write_bytes(
            pickle.dumps(Trap(trap), protocol=0 if name == "f.pkl" else 2 if name[0] == "e" else 4)
        )
    models = found(tmp_path)
    assert not trap.exists()
    assert [models[name].kind for name in "abcde"] == ["pickle"] * 5
    assert models["f"].kind == "broken", "text, as far as its beginning tells"
    pickle.loads((tmp_path / "a.ckpt").read_bytes())
    assert trap.exists(), "the control"


def test_what_is_broken_is_named_and_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write(tmp_path / "whole.safetensors", SD1)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-5])
    (tmp_path / "giant.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{" + bytes(100))
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html><html>log in</html>")
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 12\n")
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle.safetensors").symlink_to(tmp_path / "circle.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(3))
    models = found(tmp_path)
    assert models.pop("whole").kind == "checkpoint"
    assert len(models) == 9
    for name, entry in models.items():
        assert entry.kind == "broken", name
        assert entry.fault, name
        assert "\n" not in entry.fault
        assert str(tmp_path) not in entry.fault
    assert "a Git LFS pointer" in models["pointer"].fault
    assert "a link to a file that is not there" in models["gone"].fault
    assert main(["models", "add", str(tmp_path)]) == 0
    assert "1 checkpoint, 9 broken" in capsys.readouterr().out


WHOLE = written.head(SD1, {"a": "b"})[0] + bytes(written.head(SD1, None)[1])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(walk.WEIGHTS),
    begin=st.one_of(st.binary(max_size=40), st.sampled_from([WHOLE, b"GGUF\3\0\0\0", b"\x80\2", b"PK\3\4", b""])),
    changes=st.lists(st.tuples(st.integers(0, len(WHOLE)), st.binary(min_size=1, max_size=3)), max_size=4),
)
def test_no_file_stops_it(suffix: str, begin: bytes, changes: list[tuple[int, bytes]], tmp_path: Path) -> None:
    """Whatever bytes a file has, it is listed, with its fault if it has one."""
    data = bytearray(begin)
    for place, new in changes:
        data[place : place + len(new)] = new
    (tmp_path / "m").mkdir(exist_ok=True)
    file = tmp_path / "m" / f"x{suffix}"
    file.write_bytes(data)
    (entry,) = index.add(tmp_path / "m").entries
    assert entry.kind in KINDS
    assert bool(entry.fault) == (entry.kind == "broken")
    assert index.read_index().entries == {str(file): entry}
    file.unlink()


def test_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "m" / os.fsdecode(b"\xe4\n\x07.safetensors"), SD1)
    (entry,) = index.add(tmp_path / "m").entries
    assert list(index.read_index().entries.values()) == [entry]
    assert main(["models"]) == 0
    assert r"\udce4\n\x07" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["path"] == entry.path


def test_a_folder_that_cannot_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a/x.safetensors", SD1)
    write(tmp_path / "b/y.safetensors", SD1)
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    change = index.add(tmp_path)
    assert [entry.name for entry in change.entries] == ["y"]
    assert change.notes == (f"{tmp_path / 'a'} cannot be read (Permission denied), and was passed over",)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    write(tmp_path / "a/b/x.safetensors", SD1)
    (tmp_path / "a/b/up").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to(tmp_path / "a/self")
    (tmp_path / "twice").symlink_to(tmp_path / "a")
    assert list(found(tmp_path)) == ["x"]


def test_a_walk_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        write(tmp_path / f"{number:02}/x{number:02}.safetensors", {"a": (1,)})
    monkeypatch.setattr(walk, "MAX_WEIGHTS", 10)
    change = index.add(tmp_path)
    assert len(change.entries) == 10
    assert change.notes == (
        f"only the first 10 files of weights in {tmp_path} were looked at; add folders inside of it",
    )
    monkeypatch.undo()
    monkeypatch.setenv("UNNOISE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(walk, "MAX_ENTRIES", 40)
    assert "only the first 40 files" in index.add(tmp_path).notes[0]
    monkeypatch.setattr(walk, "MAX_ENTRIES", 10**6)
    deep = tmp_path / "/".join(["d"] * (walk.MAX_DEPTH + 1))
    write(deep / "y.safetensors", SD1)
    assert any("lies in more than 32 folders" in note for note in index.add(tmp_path).notes)


# how little is read


def bytes_read() -> int:
    """How many bytes this process has read, by the system's own count."""
    return int(next(line for line in Path("/proc/self/io").read_text().splitlines() if "rchar" in line).split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what is read")
def test_of_24_gigabytes_a_few_are_read(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    file = sparse(root / "large.safetensors", {**SDXL, "model.diffusion_model.out.2.weight": (12 * 10**9,)})
    assert file.stat().st_size > 24 * 10**9
    index.add(root)  # imports are done
    (tmp_path / "home" / index.LIST).unlink()
    before = bytes_read()
    change = index.add(root)
    count = bytes_read() - before
    assert (change.entries[0].kind, change.entries[0].family) == ("checkpoint", "sdxl")
    assert BLOCKS * BLOCK <= count < BLOCKS * BLOCK + 2**19, "header and blocks, and the list"
    before = bytes_read()
    assert index.add(root).fresh == 0
    assert bytes_read() - before < 2**17, "unchanged files are not read again"


def test_only_what_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pipeline(tmp_path / "models/base").parent
    for number in range(3):
        write(root / f"x{number}.safetensors", SD1, number)
    opened: list[Path] = []

    def counted(path: Path) -> Header:
        opened.append(path)
        return read_header(path)

    monkeypatch.setattr(entries_of, "read_header", counted)
    assert index.add(root).fresh == len(opened) + 1 == 7, "the model in diffusers' layout is its parts"
    assert (index.add(root).fresh, len(opened)) == (0, 6)
    write(root / "x1.safetensors", SDXL)
    change = index.add(root)
    assert (change.fresh, opened[6:]) == (1, [root / "x1.safetensors"])
    assert index.read_index().entries[str(root / "x1.safetensors")].family == "sdxl"
    (root / "x2.safetensors").unlink()
    assert str(root / "x2.safetensors") not in {entry.path for entry in index.add(root).entries}
    monkeypatch.setattr(index, "RULES", index.RULES + 1)
    index.add(root)
    assert len(opened) == 7 + 5, "what other rules recognised is read again"


def test_the_quick_hash_reads_header_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.safetensors", {"a": (5 * 10**6,)}, 1)
    first = quick_hash(file)
    begin = 8 + struct.unpack("<Q", file.read_bytes()[:8])[0]
    room = file.stat().st_size - begin
    starts = [begin + n * (room - BLOCK) // 63 for n in range(64)]
    assert starts[0] == begin
    assert starts[-1] + BLOCK == file.stat().st_size

    def with_byte(place: int) -> str:
        data = bytearray(file.read_bytes())
        data[place] ^= 1
        other = tmp_path / "b.safetensors"
        other.write_bytes(data)
        return quick_hash(other)

    assert all(with_byte(start + BLOCK - 1) != first for start in starts[::21])
    assert with_byte(10) != first, "the header counts"
    assert with_byte(starts[1] - 1) == first, "what lies between blocks does not"
    assert quick_hash(write(tmp_path / "c.safetensors", {"a": (5 * 10**6 - 1,)}, 1)) != first, "the size counts"
    small = write(tmp_path / "small.safetensors", {"a": (1000,)}, 1)
    assert quick_hash(small) != quick_hash(write(tmp_path / "d.safetensors", {"a": (1000,)}, 2))
    (tmp_path / "e").write_bytes(b"")
    assert len(quick_hash(tmp_path / "e")) == 64
    monkeypatch.setattr(quick, "BLOCKS", 32)
    assert quick_hash(file) != first
    with pytest.raises(UnnoiseError, match="cannot be read"):
        quick_hash(tmp_path / "nowhere")


# the list itself


def test_folders_come_and_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "all/a.safetensors", SD1)
    write(tmp_path / "all/inner/b.safetensors", SDXL)
    index.add(tmp_path / "all")
    index.add(tmp_path / "all/inner")
    assert index.remove(tmp_path / "all") == 1
    assert [entry.name for entry in index.read_index().entries.values()] == ["b"], "it is in another folder too"
    with pytest.raises(UnnoiseError, match=f"was not added; the list has {tmp_path / 'all/inner'}"):
        index.remove(tmp_path / "all")
    assert main(["models", "remove", str(tmp_path / "all/inner")]) == 0
    assert "1 model taken off the list; no file was touched" in capsys.readouterr().out
    assert (tmp_path / "all/inner/b.safetensors").exists()
    assert index.read_index() == index.Index()
    for wrong, what in ((tmp_path / "nowhere", "is not there"), (tmp_path / "all/a.safetensors", "is a file")):
        with pytest.raises(UnnoiseError, match=what):
            index.add(wrong)


def test_a_disk_that_is_not_mounted_keeps_its_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "disk/a.safetensors", SD1)
    write(tmp_path / "other/b.safetensors", SD1, 1)
    index.add(tmp_path / "disk")
    index.add(tmp_path / "other")
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    assert main(["models", "scan"]) == 0
    assert "disk is not there now" in capsys.readouterr().err
    assert [entry.name for entry in index.read_index().entries.values()] == ["a", "b"]


DAMAGED = [b"", b"{", b"[]", b"null", b'{"format": 1}', b'{"format": 1, "rules": 1, "folders": [], "models": [1]}',
           b'{"format": 1, "rules": 1, "folders": 3, "models": []}', b"\0" * 100]  # fmt: skip


@pytest.mark.parametrize("data", DAMAGED)
def test_a_damaged_list_says_how_to_mend_it(
    data: bytes, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir()
    (home / index.LIST).write_bytes(data)
    for verb in (["models"], ["models", "add", str(tmp_path)], ["models", "scan"]):
        assert main(verb) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert f"rm {home / index.LIST}; unnoise models add FOLDER" in err
    assert (home / index.LIST).read_bytes() == data, "it is left as it was"


def test_values_of_the_list_are_checked(home: Path, tmp_path: Path) -> None:
    write(tmp_path / "m/a.safetensors", SD1)
    index.add(tmp_path / "m")
    whole = json.loads((home / index.LIST).read_text())
    for key, value in (
        ("kind", "x"),
        ("path", "relative"),
        ("bytes", "1"),
        ("bytes", True),
        ("parts", 3),
        ("name", None),
    ):
        broken = {**whole, "models": [{**whole["models"][0], key: value}]}
        (home / index.LIST).write_text(json.dumps(broken))
        with pytest.raises(UnnoiseError, match="is damaged"):
            index.read_index()
    (home / index.LIST).write_text(json.dumps({**whole, "format": 2}))
    with pytest.raises(UnnoiseError, match="newer unnoise; update unnoise"):
        index.read_index()
    (home / index.LIST).write_text(json.dumps(whole))
    assert len(index.read_index().entries) == 1, "the control"


def test_a_hash_of_what_has_changed_since_is_not_kept(tmp_path: Path) -> None:
    file = write(tmp_path / "m/a.safetensors", SD1)
    (old,) = index.add(tmp_path / "m").entries
    write(file, SDXL, 1)
    (new,) = index.add(tmp_path / "m").entries
    index.keep({old.path: old._replace(sha256="0" * 64)})
    assert list(index.read_index().entries.values()) == [new]
    index.keep({new.path: new._replace(sha256="1" * 64)})
    assert index.read_index().entries[new.path].sha256 == "1" * 64


def test_a_full_disk_leaves_the_list_as_it_was(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "m/a.safetensors", SD1)
    index.add(tmp_path / "m")
    before = (home / index.LIST).read_bytes()
    write(tmp_path / "m/b.safetensors", SDXL)

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UnnoiseError, match="the disk is full"):
        index.add(tmp_path / "m")
    assert (home / index.LIST).read_bytes() == before
    assert sorted(path.name for path in home.iterdir()) == [".lock", index.LIST]


def test_two_at_a_time_lose_nothing(tmp_path: Path) -> None:
    folders = [write(tmp_path / f"m{n}/a{n}.safetensors", SD1, n).parent for n in range(8)]
    threads = [threading.Thread(target=index.add, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert index.read_index().folders == tuple(sorted(map(str, folders)))
    assert len(index.read_index().entries) == 8


def test_where_the_list_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert index.home() == tmp_path / "home"
    monkeypatch.delenv("UNNOISE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert index.home() == tmp_path / "data/unnoise"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert index.home() == tmp_path / ".local/share/unnoise"


# the verb


def test_the_verb_lists_by_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "models"
    write(root / "xl.safetensors", SDXL)
    write(root / "[bold]\x1b[31m.safetensors", clip(768))
    (root / "old.ckpt").write_bytes(pickle.dumps({}, 4))
    assert main(["models"]) == 0
    assert "unnoise models add FOLDER" in capsys.readouterr().out
    assert main(["models", "add", str(root)]) == 0
    assert "1 checkpoint, 1 text encoder, 1 pickle; 3 new or changed" in capsys.readouterr().out
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[bold]" in out
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [
        "checkpoint:", "text encoder:",
        "pickles, which are never opened here (`unnoise convert FILE --out FILE.safetensors` rewrites one):",
    ]  # fmt: skip
    assert main(["models", "--kind", "checkpoint", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    (model,) = answer["models"]
    assert (model["name"], model["family"], model["parts"]) == (
        "xl",
        "sdxl",
        ["denoiser", "autoencoder", "text.clip-l", "text.clip-g"],
    )
    assert model["hash"] == f"~{quick_hash(root / 'xl.safetensors')[:10]}"
    assert main(["models", "--kind", "lora"]) == 1
    assert "no kind of model is called 'lora'; one of: checkpoint" in capsys.readouterr().err


def test_the_sha256_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from unnoise.files import sha256

    root = tmp_path / "models"
    one, two = write(root / "one.safetensors", SD1), write(root / "two.safetensors", SDXL)
    index.add(root)
    assert main(["models", "one", "--hash", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["sha256"], model["hash"]) == (sha256(one), sha256(one)[:10])
    index.add(root)
    assert {e.name: e.sha256 for e in index.read_index().entries.values()} == {"one": sha256(one), "two": ""}
    two.write_bytes(two.read_bytes() + b"x")
    assert main(["models", "two", "--hash"]) == 1
    assert "has changed since it was listed; run `unnoise models scan`" in capsys.readouterr().err
    write(one, SDXL, 5)
    index.add(root)
    assert not index.read_index().entries[str(one)].sha256, "of another file there is none"


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    write(tmp_path / "m/a.safetensors", SD1)
    code = "import sys; from unnoise.cli.main import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code, "models", "add", str(tmp_path / "m")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
