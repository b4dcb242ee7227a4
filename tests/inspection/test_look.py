"""What any file is: real files of other tools, files made here, folders; and that nothing asked of one can do harm."""

# ruff: noqa: E501
from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from unnoise.cli.main import main
from unnoise.errors import UnnoiseError
from unnoise.inspection.look import look

FILES = Path(__file__).resolve().parent.parent / "fixtures" / "others" / "files"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 3997696\n" % (b"ab" * 32)
PAGE = b"<!DOCTYPE html>\n<html lang=en><head><title>Sign in \xe2\x80\xa2 Hub</title></head><body></body></html>"
REAL = {  # (what it is, a fact or the note, the fault)
    "adapter_config.json": ("the settings of a PEFT adapter: LORA", ("scale", 4.0), ""),
    "cloneofsimo_kiriko2_ti.pt": ("a textual inversion for Stable Diffusion 1", ("vectors", "<krk>: 1 for CLIP-L"), ""),
    "invoke_EasyNegative_json_named.safetensors": ("textual inversion", ("names", "kohya's"), "it is called .safetensors, and is JSON"),
    "invoke_flux_lokr_bfl.py.txt": ("an adapter (LoKr) for Flux.1", ("alpha", "not used: both factors of the products are whole"), ""),
    "invoke_flux_xlabs.py.txt": ("an adapter (LoRA) for Flux.1", ("names", "XLabs'"), ""),
    "lycoris_loha_train.toml": ("the settings of a training by kohya's", ("network_module", "lycoris.kohya"), ""),
    "not_a_pickle.bin": ("of no kind that is known", None, "raised"),
    "pickle_broken_truncated.pkl": ("a pickle that runs code", ("would call", "builtins.exec"), "it runs code"),
    "pickle_memo_keyerror.pkl": ("a pickle that runs code", ("would call", "os.system"), "it runs code"),
    "pickle_nested_raw.pkl": ("a pickle that runs code", ("hides", "a pickle inside of a pickle"), "it hides a pickle that runs code"),
    "pickle_reduce_then_garbage.pkl": ("a pickle that runs code", ("would call", "os.system"), "it runs code"),
    "pickle_torch_load_partial.pkl": ("a pickle that runs code", None, "functools.partial, torch.serialization.load"),
    "pickle_type_confusion.pkl": ("a pickle that runs code", None, "os.system"),
    "png_magic_named.pt": ("a PNG picture", None, "it ends before it says its size"),
    "sd_xl_base.yaml": ("an original configuration: Stable Diffusion XL", ("channels that it takes", 4), ""),
    "sd_xl_refiner.yaml": ("an original configuration: the refiner of Stable Diffusion XL", ("context", "[1280, 1280, 1280, 1280]"), ""),
    "ti_diffusers_learned_embeds.bin": ("a textual inversion", ("vectors", "<birb-style>: 1 for CLIP-L"), ""),
    "torch_eval.pt": ("a pickle that runs code", ("would call", "builtins.eval"), "it runs code"),
    "zip_bad_crc.zip": ("is a damaged zip (Bad CRC-32", None, "raised"),
    "zip_name_mismatch.zip": ("is a damaged zip (File name in directory", None, "raised"),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str) -> None:
    what, fact, fault = REAL[name]
    if fault == "raised":
        with pytest.raises(UnnoiseError) as error:
            look(FILES / name)
        assert what in str(error.value)
        return
    answer = look(FILES / name)
    assert what in answer.what
    if fact is not None:
        assert answer.facts[fact[0]] == fact[1]
    assert fault in answer.fault if fault else not answer.fault


def test_every_real_file_is_tried() -> None:
    assert {path.name for path in FILES.iterdir()} - {"README.md"} == set(REAL)


def png(**texts: str) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info, data = PngInfo(), io.BytesIO()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.new("RGB", (8, 6)).save(data, "PNG", pnginfo=info)
    return data.getvalue()


def saved(kind: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 6)).save(data, kind)
    return data.getvalue()


def packed(**names: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, held in names.items():
            file.writestr(name, held)
    return data.getvalue()


UI = {"nodes": [{"id": 1, "type": "KSampler"}], "links": [], "last_node_id": 1}
API = {"3": {"class_type": "KSampler", "inputs": {"seed": 1}}}
UNET = {"_class_name": "UNet2DConditionModel", "in_channels": 4, "attention_head_dim": 8, "cross_attention_dim": 768}
EDM = {"_class_name": "EDMEulerScheduler", "prediction_type": "epsilon", "sigma_data": 0.5}
INDEX = {
    "metadata": {"total_size": 9},
    "weight_map": {"double_blocks.0.a": "a-1.safetensors", "single_blocks.0.b": "a-2.safetensors"},
}
ROWS: dict[str, tuple[str, bytes | Any, str, str]] = {  # name of the file, contents, what it is, fault
    "pointer": ("a.safetensors", LFS, "a Git LFS pointer", "a Git LFS pointer"),
    "pointer of a picture": ("a.png", LFS, "a Git LFS pointer", "a Git LFS pointer"),
    "pointer of a tokenizer": ("tokenizer.json", LFS, "a Git LFS pointer", "a Git LFS pointer"),
    "pointer of xet": ("a.gguf", b"# xet version 0\nfilesize = 5\nhash = 'ab'\n", "a Xet pointer", "a Xet pointer"),
    "pointer of annex": ("a.ckpt", b"/annex/objects/SHA256E-s5--ab.ckpt\n", "a git-annex pointer", "a git-annex pointer"),
    "page": ("model.ckpt", PAGE, "a web page", "a web page"),
    "page with a mark": ("a.bin", b"\xef\xbb\xbf\r\n <html>", "a web page", "a web page"),
    "page as JSON": ("model.json", PAGE, "a web page", "a web page"),
    "page by its name": ("a.html", PAGE, "a web page", ""),
    "server's XML": ("a.pt", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a server's error", "a server's error"),
    "server's JSON": ("a.json", {"error": "Repository not found"}, "a server's error message", "Repository not found"),
    "server's JSON by another name": ("a.pt", {"detail": "Not found"}, "a server's error message", "Not found"),
    "server's text": ("a.safetensors", b"Entry not found", "text", "it is called .safetensors, and is text: Entry not found"),
    "nothing": ("a.gguf", b"", "empty", "it is empty"),
    "zeros": ("a.safetensors", bytes(5000), "nothing but zeros", "nothing but zeros"),
    "U-Net": ("unet_config.json", UNET, "the settings of a network in diffusers' layout: UNet2DConditionModel", ""),
    "EDM": ("scheduler_config.json", EDM, "the schedule of a model in diffusers' layout: EDMEulerScheduler", ""),
    "pipeline": ("model_index.json", {"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]}, "FluxPipeline", ""),
    "transformers": ("config.json", {"architectures": ["T5EncoderModel"], "d_model": 4096}, "T5EncoderModel", ""),
    "shards": ("a.safetensors.index.json", INDEX, "the index of a model in shards: the denoiser of Flux.1", ""),
    "shards elsewhere": ("b.index.json", {"weight_map": {"a.b": "../../etc/passwd"}}, "in shards", "outside of its own folder"),
    "canvas": ("w.json", UI, "a workflow of ComfyUI, as its canvas saves it", ""),
    "API": ("w.json", API, "a workflow of ComfyUI, as its interface for programs takes it", ""),
    "InvokeAI": ("w.json", {"nodes": [], "edges": [], "meta": {}}, "a workflow of InvokeAI", ""),
    "SD.Next": ("g.json", {"generate": {"prompt": "a", "steps": 3}}, "AUTOMATIC1111's or SD.Next's", ""),
    "words": ("special_params.json", {"TOK": "<s0><s1>"}, "which words the vectors", ""),
    "tokenizer": ("tokenizer.json", {"model": {"type": "BPE", "vocab": {"a": 0}}}, "a tokenizer of the tokenizers library: BPE", ""),
    "vocabulary": ("vocab.json", {str(n): n for n in range(300)}, "a tokenizer's vocabulary", ""),
    "merges": ("merges.txt", b"#version: 0.2\ni n\nt h\na n\n", "the merges of a byte-pair tokenizer of CLIP", ""),
    "packed merges": ("b.txt.gz", gzip.compress(b'"bpe_simple_vocab_16e6.txt#version: 0.2\ni n\n'), "CLIP's tokenizer", ""),
    "SentencePiece": ("spiece.model", b"\n\x0e\n\x05<pad>\x15\0\0\0\0\x18\x03\n\r\n\x04</s>\x15\0\0\0\0\x18\x03", "a SentencePiece model", ""),
    "kohya's captions": ("meta.json", {"a\\b.png": {"caption": "x", "train_resolution": [1, 1]}}, "kohya's layout for fine-tuning", ""),
    "SimpleTuner": ("b.json", [{"id": "a", "type": "local"}], "SimpleTuner", ""),
    "OneTrainer": ("b.json", {"training_method": "LORA", "model_type": "FLUX_DEV_1"}, "OneTrainer", ""),
    "kohya": ("d.toml", b'[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = "a"\n', "kohya's layout", ""),
    "kohya without sense": ("d.toml", b"[[datasets]]\nsubsets = 3\n", "kohya's layout", ""),
    "old kohya": ("d.toml", b"[[dataset]]\nresolution = 512\n", "kohya's first layout", "its table is called dataset"),
    "lines": ("metadata.jsonl", b'{"file_name":"1.jpg","text":"a"}\n{"file_name":"2.jpg","text":"b"}\n', "an imagefolder's metadata.jsonl", ""),
    "tags": ("a.cap", b"solo,cat,mask,1other", "a caption: tags", ""),
    "list of keys": ("keys.json", ["lora_unet_a.lokr_w1", "lora_unet_a.lokr_w2"], "an adapter (LoKr)", ""),
    "list with shapes": ("k.txt", b"input_blocks.1.1.a [1]\ninput_blocks.2.1.b [2,2]\nx.attn2.to_k.weight [3,2048]\n", "Stable Diffusion XL", ""),
    "SD1 by YAML": ("v1.yaml", b"model:\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder\n", "Stable Diffusion 1", ""),
    "SD2 by YAML": ("v2.yaml", b'm:\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n    parameterization: "v"\n  t: FrozenOpenCLIPEmbedder\n', "Stable Diffusion 2", ""),
    "GIF": ("a.png", saved("GIF"), "a GIF picture", ""),
    "JPEG": ("a.png", saved("JPEG"), "a JPEG picture", ""),
    "WebP": ("a.webp", saved("WEBP"), "a WebP picture", ""),
    "PNG": ("a.jpg", png(parameters="a duck\nSteps: 3, Sampler: Euler, CFG scale: 5, Seed: 7, Size: 64x64"), "a PNG picture", ""),
    "cut PNG": ("a.png", png()[:-12], "a PNG picture", "it is cut short"),
    "Keras": ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(8), "an HDF5 file", ""),
    "GGML": ("a.bin", b"lmgg" + bytes(8), "a GGML file", ""),
    "arrays": ("a.npz", packed(**{"a.npy": b"\x93NUMPY"}), "a zip of NumPy arrays", ""),
    "damaged JSON": ("a.json", b'{"a": 1', "damaged JSON", "it is no whole JSON"),
    "deep JSON": ("a.json", b"[" * 100_000, "damaged JSON", "nested too deeply"),
    "strange JSON": ("a.json", {"a": 1}, "JSON of no kind", ""),
}  # fmt: skip


def written(path: Path, held: Any) -> Path:
    path.write_bytes(held if isinstance(held, bytes) else json.dumps(held).encode())
    return path


@pytest.mark.parametrize("case", ROWS)
def test_files(case: str, tmp_path: Path) -> None:
    name, held, what, fault = ROWS[case]
    answer = look(written(tmp_path / name, held))
    assert what in answer.what
    assert fault in answer.fault if fault else not answer.fault
    assert answer.mend or not answer.fault


def test_a_graph_of_comfyui_in_two_bytes_a_character(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(json.dumps({"1": {"class_type": "KSampler", "inputs": {}}}).encode("utf-16"))
    assert "a workflow of ComfyUI" in look(tmp_path / "a.json").what


def test_what_a_picture_of_ours_with_a_damaged_record_is(tmp_path: Path) -> None:
    answer = look(written(tmp_path / "a.png", png(unnoise="{")))
    assert answer.facts["made by"] == "unnoise; `unnoise replay` makes it again, or says why not"


def test_a_picture_of_very_many_parts_is_not_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unnoise.inspection.pictures.MAX_BLOCKS", 3)
    answer = look(written(tmp_path / "a.png", png(a="x", b="y", c="z")))
    assert (answer.fault, "first parts" in answer.note) == ("", True)


def test_facts_that_people_need(tmp_path: Path) -> None:
    def facts(case: str) -> dict[str, Any]:
        name, held, *_ = ROWS[case]
        return dict(look(written(tmp_path / name, held)).facts)

    assert facts("pointer")["bytes of the file itself"] == 3_997_696
    assert facts("page")["it says"] == "Sign in • Hub"
    assert facts("U-Net")["heads"].startswith("8 (attention_head_dim counts heads")
    assert "not as Stable Diffusion has it" in facts("EDM")["prediction"]
    assert facts("SD2 by YAML")["prediction"] == "v, not noise"
    assert facts("shards")["missing"] == "a-1.safetensors, a-2.safetensors"
    (tmp_path / "a-1.safetensors").touch()
    assert facts("shards")["missing"] == "a-2.safetensors"
    assert facts("SentencePiece")["entries"] == 2
    drawn = facts("PNG")
    assert (drawn["size"], drawn["drawn at"], drawn["prompt"], drawn["seed"]) == ("8 x 6", "64 x 64", "a duck", 7)
    assert facts("JPEG")["colours"] == "colour, 8 bits"


@pytest.mark.parametrize(
    ("name", "held", "status"), [("a.json", UNET, 0), ("a.pt", LFS, 1), ("b.bin", b"\x01\x02\x03", 1)]
)
def test_the_status(name: str, held: Any, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(written(tmp_path / name, held))]) == status
    out, err = capsys.readouterr()
    assert bool(err) == bool(status)
    assert err.count("\n") <= 1
    assert main(["inspect", str(tmp_path / name), "--json"]) == status
    if found := capsys.readouterr().out:
        record = json.loads(found)
        assert record["kind"] in out
        assert bool(record["fault"]) == bool(status)


def test_nothing_steers_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;x\x07\x9b31m\u202e"
    held = {evil: {"class_type": evil, "inputs": {}}}
    for name, data in (("a.json", held), ("b.json", {"error": evil}), ("c.png", png(parameters=f"{evil}\nSteps: 3")),
                       ("d.pt", packed(**{"data.pkl": pickle.dumps({evil: 1}), evil: b""}))):  # fmt: skip
        main(["inspect", str(written(tmp_path / name, data))])
        said = "".join(capsys.readouterr())
        assert said.strip()
        assert all(c.isprintable() or c == "\n" for c in said), name


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "none", "there is no file"),
        (tmp_path / "pipe", "no regular file"),
        (Path("/dev/zero"), "no regular file"),
    ):
        with pytest.raises(UnnoiseError, match=said):
            look(path)


LIES = {
    "a length of 7.3e18": b'{\n    "e": 1}' + bytes(8),
    "a header of 100 MB": struct.pack("<Q", 10**8) + b'{"a":' + bytes(100),
    "a string of half a gigabyte in a pickle": b"\x80\x02X\xff\xff\xff\x1f",
    "bytes without end in a pickle": b"\x80\x04\x8e" + struct.pack("<Q", 2**62),
    "a zip with a directory of gigabytes": b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 2**32 - 2, 0, 0),
    "a GGUF with tensors without end": b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60),
    "a GGUF with a key without end": b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2**63),
    "a PNG with a chunk of gigabytes": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 2**31, b"tEXt"),
}


@pytest.mark.parametrize("case", LIES)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_length_that_lies_takes_no_memory(case: str, suffix: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"a{suffix}", LIES[case])
    tracemalloc.start()
    try:
        assert look(path).fault
    except UnnoiseError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * 2**20


BEGINNINGS = [b"", b"\x80\x02", b"\x80\x04\x95", b"PK\x03\x04", b"GGUF\x03\0\0\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1", b"RIFF\x20\0\0\0WEBPVP8X", b"{", b"[[", b"\n\x0e\n\x05<pad>", b"\x1f\x8b\x08", struct.pack("<Q", 20) + b"{", b"model:\n  target: ", b"[[datasets]]\n"]  # fmt: skip


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(BEGINNINGS), st.binary(max_size=120) | st.text(max_size=60).map(str.encode), st.sampled_from([".pt", ".json", ".safetensors", ".png", ".txt", ""]))  # fmt: skip
def test_any_bytes_are_an_answer_or_a_mistake(tmp_path: Path, begin: bytes, rest: bytes, suffix: str) -> None:
    path = written(tmp_path / f"any{suffix}", begin + rest)
    try:
        answer = look(path)
    except UnnoiseError:
        return
    assert answer.what


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["_class_name", "weight_map", "nodes", "links", "shape", "keys", "model", "vocab", "r", "peft_type", "lora_alpha", "generate", "prompt", "steps", "caption", "id", "type", "error", "architectures", "a"]), inner, max_size=4)))  # fmt: skip
def test_any_json_is_an_answer(tmp_path: Path, value: Any) -> None:
    assert look(written(tmp_path / "any.json", value)).what


def test_no_torch_and_nothing_run(tmp_path: Path) -> None:
    """One process for all: every real file, with an ear for imports by a pickle and for commands."""
    code = """
import sys
heard = []
sys.addaudithook(lambda event, args: heard.append(event) if event in ("pickle.find_class", "os.system", "subprocess.Popen", "socket.connect") else None)
from unnoise.cli.main import main
for path in sys.argv[1:]:
    main(["inspect", path])
assert "torch" not in sys.modules and not heard, heard
"""
    files = [str(path) for path in sorted(FILES.iterdir())]
    (tmp_path / "sound.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    files.append(str(tmp_path / "sound.safetensors"))
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr


# folders


def tensors(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.zeros(4, 4) for name in names}, path)
    return path


def test_folders(tmp_path: Path, tiny_model: Path) -> None:
    assert look(tiny_model).what.startswith("an unnoise model")
    model = tmp_path / "sd"
    record = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
              "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "PNDMScheduler"], "..": ["a", "b"]}  # fmt: skip
    tensors(model / "unet" / "a.safetensors", "down_blocks.0.a")
    written(model / "model_index.json", record)
    answer = look(model)
    assert answer.what == "a model in diffusers' layout: StableDiffusionPipeline"
    assert answer.facts["unet"] == "UNet2DConditionModel, 1 files of weights"
    assert "nothing to load for vae, scheduler, .." in answer.note
    peft = tmp_path / "peft"
    tensors(peft / "adapter_model.safetensors", "base_model.model.a.lora_A.weight", "base_model.model.a.lora_B.weight")
    written(peft / "adapter_config.json", {"peft_type": "LORA", "r": 4, "lora_alpha": 16})
    assert look(peft).what == "an adapter (LoRA), as PEFT saves it"
    assert look(peft).facts["alpha"] == "by its settings; its scale is 4"
    comfy = tmp_path / "comfy"
    tensors(comfy / "loras" / "a.safetensors", "a.lora_down.weight", "a.lora_up.weight")
    (comfy / "checkpoints").mkdir()
    assert look(comfy).what == "the models folder of ComfyUI"
    assert look(comfy).facts["loras"].startswith("1 files of weights")
    tensors(comfy / "loras" / "b.safetensors", "emb_params")
    (comfy / "loras" / "c.pt").write_bytes(LFS)
    assert look(comfy / "loras").facts["a.safetensors"] == "an adapter (LoRA)"
    assert look(comfy / "loras").facts["c.pt"].startswith("a Git LFS pointer")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    written(pictures / "a.png", png())
    written(pictures / "a.txt", b"a caption")
    assert (look(pictures).what, look(pictures).facts["captions beside them"]) == ("a folder of pictures", 1)
    run = tmp_path / "run"
    (run / "checkpoints" / "step-00000010").mkdir(parents=True)
    written(run / "run.json", {"recipe": "emoji-flow", "arguments": []})
    assert look(run).facts == {"recipe": "emoji-flow", "checkpoints": 1, "newest": "step-00000010"}
    (tmp_path / "none").mkdir()
    assert look(tmp_path / "none").what == "an empty folder"
