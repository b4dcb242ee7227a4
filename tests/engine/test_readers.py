"""What pictures of other tools say of how they were made: real ones, and forms of each tool made here."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gzip
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unnoise.engine.readers import comfyui
from unnoise.engine.readers.container import texts_of, user_comment
from unnoise.engine.readers.like import in_one_line, like
from unnoise.engine.readers.own import OLDER
from unnoise.engine.readers.own import reading as reading_of_own
from unnoise.engine.readers.read import READERS, read_settings
from unnoise.engine.readers.reading import Reading, real, whole
from unnoise.errors import UnnoiseError

OTHERS = Path(__file__).resolve().parent.parent / "fixtures" / "others"
DUCK = {"prompt": "photo of a duck", "negative": "monochrome", "steps": 15, "sampler": "UniPC", "schedule": None,
        "cfg_scale": 5.0, "seed": 235284042, "size": (512, 400), "strength": None}  # fmt: skip
REAL: dict[str, dict[str, Any]] = {
    "a1111_1x1.png": DUCK | {"tool": "AUTOMATIC1111 or a tool that writes as it does"},
    "a1111.jpg": DUCK,
    "a1111_stealth_alpha.png": {"tool": "AUTOMATIC1111", "prompt": "a circle", "negative": "a square", "steps": 20,
                                "sampler": "Euler", "schedule": "Automatic", "cfg_scale": 7.0, "seed": 2015833630,
                                "size": (64, 64)},
    "comfyui_img2img_1x1.png": {"tool": "ComfyUI", "negative": "watermark, text", "steps": 20, "schedule": "normal",
                                "prompt": "photograph of victorian woman with wings, sky clouds, meadow grass",
                                "sampler": "sample_dpmpp_2m", "cfg_scale": 8.0, "seed": 280823642470253,
                                "strength": 0.8700000000000001, "size": None},
    "fooocus_1x1.png": {"tool": "Fooocus", "prompt": "a smiling goldfish", "negative": "", "steps": 30,
                        "sampler": "dpmpp_2m_sde_gpu", "schedule": "karras", "cfg_scale": 4.0,
                        "seed": 6952411511246973023, "size": (768, 1280)},
    "invokeai_sdmeta_dream_1x1.png": {"tool": "InvokeAI", "negative": "rendering, glowing eyes, skinny", "steps": 50,
                                      "sampler": "k_lms", "cfg_scale": 5.0, "seed": 2980747362, "size": (512, 768)},
    "novelai_v1_1x1.png": {"tool": "NovelAI", "prompt": "masterpiece, best quality,  cat, space, icon", "steps": 50,
                           "sampler": "k_euler_ancestral", "cfg_scale": 10.0, "seed": 2253955223, "literal": True},
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_pictures(name: str) -> None:
    found = read_settings(OTHERS / name)
    assert found is not None
    assert {field: getattr(found, field) for field in REAL[name]} == REAL[name]


def test_every_real_picture_is_tried() -> None:
    assert {path.name for path in OTHERS.iterdir() if path.is_file()} - {"README.md"} == set(REAL)


# forms that are made here


def png(tmp_path: Path, texts: dict[str, str], kind: str = "iTXt", **save: Any) -> Path:
    """A PNG with those texts."""
    info = PngInfo()
    for key, text in texts.items():
        if kind == "tEXt":
            info.add(b"tEXt", key.encode() + b"\0" + text.encode())
        else:
            info.add_itxt(key, text) if kind == "iTXt" else info.add_text(key, text, zip=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "made.png", pnginfo=info, **save)
    return tmp_path / "made.png"


def found(tmp_path: Path, texts: dict[str, Any], kind: str = "iTXt") -> Reading:
    """What a PNG with those texts says."""
    texts = {key: text if isinstance(text, str) else json.dumps(text) for key, text in texts.items()}
    reading = read_settings(png(tmp_path, texts, kind))
    assert reading is not None
    return reading


LINES = (
    "ein Apfel, 🍎\nNegative prompt: blue\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 5"
)


@pytest.mark.parametrize("kind", ["iTXt", "tEXt", "zTXt"])
def test_text_chunks(kind: str, tmp_path: Path) -> None:
    """UTF-8 in a Latin-1 chunk, as Tensor.Art writes it, is UTF-8."""
    text = LINES if kind != "zTXt" else LINES.replace("🍎", "é")
    reading = found(tmp_path, {"parameters": text}, kind)
    assert (reading.prompt, reading.negative) == (text.split("\n")[0], "blue")
    assert (reading.steps, reading.sampler, reading.schedule, reading.seed) == (20, "DPM++ 2M", "Karras", 5)


@pytest.mark.parametrize("tiff", ["<", ">"])
@pytest.mark.parametrize("code", ["utf-16-be", "utf-16-le", "utf-8", "ascii"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_comments_in_exif(tiff: str, code: str, suffix: str, tmp_path: Path) -> None:
    """The order of a text's bytes is judged apart from the order of the block around it."""
    text = LINES if code != "ascii" else LINES.replace("🍎", "apple")
    exif = Image.Exif()
    exif.endian = tiff
    exif[0x0112] = 1  # without any tag of its own Pillow writes none into a PNG
    exif.get_ifd(0x8769)[0x9286] = (b"ASCII\0\0\0" if code == "ascii" else b"UNICODE\0") + text.encode(code)
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{suffix}", exif=exif)
    reading = read_settings(tmp_path / f"a.{suffix}")
    assert reading is not None
    assert (reading.prompt, reading.negative, reading.seed) == (text.split("\n")[0], "blue", 5)


def test_comments_in_exif_under_names_that_are_not_theirs() -> None:
    """Text in two bytes a character without a name, UTF-8 with a mark, and JIS, which is spelt by escapes."""
    text = "eine Katze 猫"
    for code in ("utf-16-le", "utf-16-be"):
        assert user_comment(b"\0" * 8 + text.encode(code)) == text
    assert user_comment(b"UNICODE\0" + text.encode("utf-8-sig")) == text
    assert user_comment(b"JIS\0\0\0\0\0" + text.encode("iso2022_jp")) == text
    assert user_comment(b"\0" * 8 + text.encode()) == text


@pytest.mark.parametrize("code", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_files_of_settings_in_every_code(code: str, tmp_path: Path) -> None:
    """What redirecting a program's output writes on Windows."""
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps({"prompt": "猫", "steps": 7, "seed": 3}, ensure_ascii=False).encode(code))
    reading = read_settings(path)
    assert reading is not None
    assert (reading.prompt, reading.steps, reading.seed) == ("猫", 7, 3)


def test_lines_that_end_as_on_windows(tmp_path: Path) -> None:
    reading = found(tmp_path, {"parameters": LINES.replace("\n", "\r\n") + "\r\n"})
    assert (reading.prompt, reading.negative, reading.seed) == ("ein Apfel, 🍎", "blue", 5)
    assert (reading.cfg_scale, reading.left_out) == (7.0, {})


def test_tags_in_the_prompts_of_every_tool(tmp_path: Path) -> None:
    prompt = "<lora:nice:0.8> an apple, <lyco:other>"
    for key, values in (
        ("parameters", {"sui_image_params": {"prompt": prompt, "steps": 2}}),
        ("prompt", changed(n6={"text": prompt})),
    ):
        reading = found(tmp_path, {key: values})
        assert reading.prompt == "an apple"
        assert {"lora nice": "0.8", "lyco other": "1"}.items() <= reading.left_out.items()


GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {
        "seed": 7, "steps": 20, "cfg": 6.5, "sampler_name": "euler_ancestral", "scheduler": "karras", "denoise": 1.0,
        "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "some.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 640, "height": 512, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red apple", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blue", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}},
}  # fmt: skip


def changed(**changes: dict[str, Any]) -> dict[str, Any]:
    """The graph with other inputs or nodes, by "n" and the node's number."""
    graph = copy.deepcopy(GRAPH)
    for key, more in changes.items():
        if "class_type" in more:
            graph[key[1:]] = more
        else:
            graph[key[1:]]["inputs"] |= more  # type: ignore[operator]
    return graph


def test_a_graph(tmp_path: Path) -> None:
    reading = found(tmp_path, {"prompt": GRAPH})
    assert (reading.tool, reading.prompt, reading.negative) == ("ComfyUI", "a red apple", "blue")
    assert (reading.steps, reading.cfg_scale, reading.seed, reading.size) == (20, 6.5, 7, (640, 512))
    assert (reading.sampler, reading.schedule, reading.strength) == ("euler_ancestral", "karras", None)
    assert reading.left_out == {"model": "some.safetensors"}


def test_values_and_texts_that_other_nodes_hold(tmp_path: Path) -> None:
    graph = changed(
        n3={"seed": ["20", 0], "positive": ["23", 0], "negative": ["23", 1]},
        n6={"text": ["22", 0]},
        n20={"class_type": "PrimitiveNode", "inputs": {"value": 99}},
        n22={"class_type": "String Literal", "inputs": {"string": "two hearts"}},
        n23={"class_type": "ControlNetApplyAdvanced", "inputs": {"positive": ["6", 0], "negative": ["7", 0]}},
    )
    reading = found(tmp_path, {"prompt": graph})
    assert (reading.seed, reading.prompt, reading.negative) == (99, "two hearts", "blue")


def test_a_custom_sampler(tmp_path: Path) -> None:
    graph = changed(
        n3={"class_type": "SamplerCustomAdvanced", "inputs": {
            "noise": ["30", 0], "guider": ["31", 0], "sampler": ["32", 0], "sigmas": ["33", 0]}},
        n30={"class_type": "RandomNoise", "inputs": {"noise_seed": 11}},
        n31={"class_type": "CFGGuider", "inputs": {"positive": ["6", 0], "negative": ["7", 0], "cfg": 4}},
        n32={"class_type": "KSamplerSelect", "inputs": {"sampler_name": "uni_pc"}},
        n33={"class_type": "BasicScheduler", "inputs": {"scheduler": "beta", "steps": 12, "denoise": 1}},
    )  # fmt: skip
    reading = found(tmp_path, {"prompt": graph})
    assert (reading.prompt, reading.negative, reading.cfg_scale, reading.seed) == ("a red apple", "blue", 4.0, 11)
    assert (reading.sampler, reading.schedule, reading.steps) == ("uni_pc", "beta", 12)
    del graph["31"]["inputs"]["cfg"], graph["31"]["inputs"]["negative"]
    graph["31"]["inputs"] = {"conditioning": ["6", 0]}
    plain = found(tmp_path, {"prompt": graph})
    assert (plain.prompt, plain.negative, plain.cfg_scale) == ("a red apple", None, 1.0)


def test_several_samplers_have_no_single_answer(tmp_path: Path) -> None:
    graph = changed(n8={"samples": ["13", 0]}, n6={})
    graph["13"] = copy.deepcopy(GRAPH["3"])
    graph["13"]["inputs"] |= {"seed": 8, "latent_image": ["3", 0], "denoise": 0.5}
    reading = found(tmp_path, {"prompt": graph})
    assert (reading.prompt, reading.steps, reading.seed) == ("a red apple", 20, None)
    assert reading.left_out["seed of 2 samplers"] in ("7 | 8", "8 | 7")
    assert "2 samplers (KSampler 3, KSampler 13)" in reading.notes[0]
    graph["9"]["inputs"]["images"] = ["99", 0]
    graph["99"] = {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0]}}
    assert found(tmp_path, {"prompt": graph}).seed == 7, "a sampler that nothing shows does not count"


def as_edited(graph: dict[str, Any]) -> dict[str, Any]:
    """The graph as the editor keeps it."""
    kinds = {"KSampler": lambda i: [i["seed"], "randomize", i["steps"], i["cfg"], i["sampler_name"], i["scheduler"], 1],
             "CLIPTextEncode": lambda i: [i["text"]], "EmptyLatentImage": lambda i: [i["width"], i["height"], 1],
             "CheckpointLoaderSimple": lambda i: [i["ckpt_name"]]}  # fmt: skip
    nodes, links = [], []
    for key, node in graph.items():
        slots = []
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                links.append([len(links) + 1, int(value[0]), value[1], int(key), 0, "X"])
                slots.append({"name": name, "link": len(links)})
        kind = node["class_type"]
        values = kinds[kind](node["inputs"]) if kind in kinds else []
        nodes.append({"id": int(key), "type": kind, "mode": 0, "inputs": slots, "widgets_values": values})
    return {"nodes": nodes, "links": links}


def test_an_edited_graph_says_the_same_as_a_run_one(tmp_path: Path) -> None:
    run, edited = found(tmp_path, {"prompt": GRAPH}), found(tmp_path, {"workflow": as_edited(GRAPH)})
    assert dataclasses.replace(edited, left_out=run.left_out) == run
    workflow = as_edited(GRAPH)
    workflow["links"] = [
        dict(zip(("id", "origin_id", "origin_slot"), each, strict=False)) for each in workflow["links"]
    ]
    assert found(tmp_path, {"workflow": workflow}) == edited
    workflow["nodes"][0]["mode"] = 2
    assert found(tmp_path, {"workflow": workflow}).notes == ("the graph has no sampler",)
    (tmp_path / "a.json").write_text(json.dumps(as_edited(GRAPH)))
    assert read_settings(tmp_path / "a.json") == edited


INVOKE = {"positive_prompt": "a cat", "negative_prompt": "a dog", "width": 8, "height": 16, "seed": 3, "cfg_scale": 7.5,
          "steps": 30, "scheduler": "dpmpp_2m_k", "model": {"name": "m"}, "loras": [{"a": 1}]}  # fmt: skip
NOVEL = {"prompt": "{red} apple", "uc": "blue", "steps": 28, "seed": 9, "scale": 5, "sampler": "k_dpmpp_2m",
         "noise_schedule": "karras", "width": 832, "height": 1216, "signed_hash": "x"}  # fmt: skip
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "invokeai": ({"invokeai_metadata": INVOKE},
                 {"tool": "InvokeAI", "prompt": "a cat", "negative": "a dog", "size": (8, 16), "sampler": "dpmpp_2m",
                  "schedule": "karras", "cfg_scale": 7.5, "left_out": {"model": "m", "loras": "1 entries"}}),
    "dream": ({"Dream": '"a \\"big\\" cat [a dog]" -s50 -S 7 -W 512 -H 768 -C 5.5 -A k_euler_a -f 0.3'},
              {"prompt": 'a "big" cat', "negative": "a dog", "steps": 50, "seed": 7, "size": (512, 768),
               "cfg_scale": 5.5, "sampler": "k_euler_a", "strength": 0.3}),
    "novelai": ({"Comment": NOVEL, "Software": "NovelAI"},
                {"tool": "NovelAI", "prompt": "{red} apple", "negative": "blue", "steps": 28, "schedule": "karras",
                 "literal": True, "size": (832, 1216), "left_out": {}}),
    "ruined": ({"parameters": {"Prompt": "a", "Negative": "b", "steps": 30, "cfg": 8, "seed": 2,
                               "software": "RuinedFooocus", "sampler_name": "dpmpp_2m_sde_gpu", "scheduler": "karras"}},
               {"tool": "RuinedFooocus", "prompt": "a", "negative": "b", "cfg_scale": 8.0, "schedule": "karras"}),
    "swarm": ({"parameters": {"sui_image_params": {"prompt": "a", "negativeprompt": "b", "steps": 20, "cfgscale": 7}}},
              {"tool": "SwarmUI", "negative": "b", "cfg_scale": 7.0}),
    "sdcpp": ({"parameters": 'a cat\nSteps: 20, CFG scale: 7.000000, Eta: inf, Seed: 42, Size: 8x8, Model: , '
                             'Sampler: euler discrete, Version: stable-diffusion.cpp, SDCPP: {"seed": 1}'},
              {"tool": "stable-diffusion.cpp", "steps": 20, "seed": 42, "sampler": "euler discrete", "eta": None,
               "cfg_scale": 7.0, "left_out": {"Eta": "inf"}}),
    "sdnext": ({"parameters": "a\nNegative prompt: b\n\nSteps: 20, Size: 64x64, Sampler: Euler a, Seed: 8, "
                              "CFG scale: 6, App: SD.Next, Version: 56a8aea, Sampler sigma: beta"},
               {"tool": "SD.Next", "negative": "b", "schedule": "beta-sigma", "size": (64, 64), "left_out": {}}),
    "forge": ({"parameters": "a <lora:nice:0.8>\nSteps: 2, Sampler: Euler, CFG scale: 1, Seed: 1, Denoising "
                             'strength: 0.7, Hires upscale: 2, Lora hashes: "nice: 1, b: 2", Version: f2.0.1'},
              {"tool": "Forge", "prompt": "a", "strength": None,
               "left_out": {"lora nice": "0.8", "Denoising strength": "0.7", "Hires upscale": "2",
                            "Lora hashes": "nice: 1, b: 2"}}),
    "civitai": ({"parameters": 'a\nSteps: 2, Sampler: Euler, CFG scale: 1, Seed: 1, '
                               'Civitai resources: [{"a": "b, c: d"}], Civitai metadata: {}'},
                {"tool": "Civitai", "steps": 2, "left_out": {"Civitai resources": '[{"a": "b, c: d"}]',
                                                             "Civitai metadata": "{}"}}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_tools(name: str, tmp_path: Path) -> None:
    texts, wanted = CASES[name]
    reading = found(tmp_path, texts)
    assert {field: getattr(reading, field) for field in wanted} == wanted


def test_hidden_texts(tmp_path: Path) -> None:
    """In the lowest bits of the alpha channel or of the colours, packed or not; a length that lies finds nothing."""
    for name, sort in (("stealth_pngcomp", "RGBA"), ("stealth_pnginfo", "RGBA"), ("stealth_rgbcomp", "RGB")):
        data = LINES.encode() if name.endswith("info") else gzip.compress(LINES.encode())
        for size in (8 * len(data), 2**32 - 1):
            bits = np.unpackbits(np.frombuffer(name.encode() + size.to_bytes(4, "big") + data, np.uint8))
            pixels = np.full((64, 64, len(sort)), 254, np.uint8)
            kept = pixels[..., 3:] if sort == "RGBA" else pixels
            flat = kept.transpose(1, 0, 2).reshape(-1)
            flat[: len(bits)] |= bits
            kept[...] = flat.reshape(64, 64, -1).transpose(1, 0, 2)
            Image.fromarray(pixels).save(tmp_path / "a.png")
            reading = read_settings(tmp_path / "a.png")
            assert (None if reading is None else reading.seed) == (5 if size < 2**31 else None), name


# what somebody hostile writes


@pytest.mark.parametrize(
    ("value", "taken"),
    [("9e999", None), ("-1", None), (str(2**64), None), (str(2**63 - 1), 2**63 - 1), ("7.0", None), ("nan", None),
     ("", None), ("1" * 5000, None), ("٣", None)],
)  # fmt: skip
def test_numbers_that_are_not_sensible_are_left_out(value: str, taken: int | None, tmp_path: Path) -> None:
    reading = found(tmp_path, {"parameters": f"a\nSteps: 20, Sampler: Euler, CFG scale: inf, Seed: {value}, Size: 0x5"})
    assert (reading.seed, reading.cfg_scale, reading.size) == (taken, None, None)
    assert (reading.left_out["CFG scale"], reading.left_out["Size"]) == ("inf", "0x5")
    assert ("Seed" in reading.left_out) == (taken is None and value != "")


@pytest.mark.parametrize(
    "text",
    [
        '{"3": {"class_type": "KSampler", "inputs": ' + "[" * 100_000 + "}}",
        '{"a":' * 100_000,
        json.dumps(
            changed(n3={"positive": ["3", 0], "negative": ["8", 0], "latent_image": ["3", 0], "seed": ["3", 0]})
        ),
        json.dumps(changed(n3={"positive": ["nobody", 0], "steps": [], "cfg": {}, "sampler_name": 5, "seed": True})),
        json.dumps(changed(n6={"text": ["6", 0]}, n5={"width": ["5", 0], "height": None})),
        json.dumps(
            {"nodes": [{"id": [], "type": "KSampler", "inputs": {}, "widgets_values": 3}, 4, None], "links": "x"}
        ),
        json.dumps(
            {"nodes": [{"id": 1, "type": "KSampler", "inputs": [1, {"link": []}]}], "links": [[{}, [], 1, 1, 1]]}
        ),
        '{"seed": ' + "9" * 4000 + ', "prompt": "x", "steps": NaN, "cfg": -Infinity, "sampler": ["x"]}',
        '{"prompt": 3, "Comment": [], "uc": {}, "v4_prompt": {"caption": 4}, "steps": "many"}',
        "[" * 100_000,
    ],
)
def test_hostile_json_is_no_crash(text: str, tmp_path: Path) -> None:
    """In every place that JSON is read from; whatever is found has the right types."""
    for key in ("prompt", "workflow", "parameters", "invokeai_metadata", "sd-metadata", "Comment", "generation_data"):
        reading = read_settings(png(tmp_path, {key: text, "Software": "NovelAI"}))
        if reading is not None:
            assert reading.seed is None or type(reading.seed) is int
            assert all(
                type(name) is type(value) is str and len(value) <= 200 for name, value in reading.left_out.items()
            )
            like(reading, (128, 128))
    (tmp_path / "a.json").write_text(text)
    with contextlib.suppress(UnnoiseError):
        read_settings(tmp_path / "a.json")


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(["3", 0])
ANY = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
PLACES = ["seed", "steps", "cfg", "positive", "text", "inputs", "sampler_name", "latent_image"]


@settings(max_examples=50, deadline=None)
@given(ANY, st.sampled_from(sorted(GRAPH)), st.sampled_from(PLACES))
def test_any_value_anywhere_in_a_graph(value: Any, node: str, name: str) -> None:
    graph = copy.deepcopy(GRAPH)
    if name == "inputs":
        graph[node]["inputs"] = value
    else:
        graph[node]["inputs"][name] = value  # type: ignore[index]
    for each in (graph, {"nodes": value, "links": [value]}, {"nodes": list(graph.values()), "links": value}):
        reading = comfyui.of_graph(each)
        if reading is not None:
            like(reading, (128, 128))


def test_a_number_that_is_no_number_does_not_hide_the_rest(tmp_path: Path) -> None:
    """Python refuses to read whole numbers of more than 4,300 digits."""
    text = json.dumps(GRAPH).replace('"seed": 7', '"seed": ' + "1" * 5000)
    reading = found(tmp_path, {"prompt": text})
    assert (reading.prompt, reading.steps, reading.seed) == ("a red apple", 20, None)
    assert reading.left_out["seed"] == "inf"


def test_what_is_packed_is_unpacked_within_bounds(tmp_path: Path) -> None:
    """A text of 40 MiB in 40 kB is not read, and costs less than it has; the ones after it are."""
    info = PngInfo()
    info.add(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * (40 * 2**20)))
    info.add_itxt("parameters", LINES)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png", pnginfo=info)
    tracemalloc.start()
    try:
        texts = texts_of((tmp_path / "a.png").read_bytes())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert texts == {"parameters": LINES}
    assert peak < 24 * 2**20


@pytest.mark.parametrize(
    "text",
    [
        "a\n" * 300_000 + "Steps: 1, Sampler: Euler, Seed: 5",
        "a\nSteps: 1, Sampler: Euler, Seed: 5, " + 'k: ["' * 100_000,
        " " * 1_000_000 + "x\nSteps: 1, Sampler: Euler, Seed: 5",
    ],
)
def test_long_texts_are_read_once(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: as many lines are looked at as can matter, and JSON is tried once in a line."""
    tried: list[int] = []
    decode = json.JSONDecoder.raw_decode
    monkeypatch.setattr(json.JSONDecoder, "raw_decode", lambda *args: tried.append(1) or decode(*args))
    reading = found(tmp_path, {"parameters": text})
    assert reading.seed == 5
    assert len(tried) <= 2
    assert like(reading, (128, 128)).prompt in ("x", " ".join(["a"] * 300_000), "a")


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    assert read_settings(tmp_path / "a.png") is None
    for name, data in (("b.png", b"hello"), ("c.jpg", b"\xff\xd8\xff\xe0"), ("d.json", b"{"), ("e.json", b"{\xff}")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UnnoiseError, match="cannot be read"):
            read_settings(tmp_path / name)
    for path in (tmp_path, tmp_path / "nothing.png"):
        with pytest.raises(UnnoiseError, match="cannot be read"):
            read_settings(path)


@pytest.mark.parametrize(
    ("reading", "wanted"),
    [
        (Reading("x", sampler="DPM++ 2M Karras"), {"solver": "dpmpp-2m", "spacing": "karras"}),
        (Reading("x", sampler="Euler a", schedule="Automatic"), {"solver": "euler-a"}),
        (Reading("x", sampler="DDIM", eta=0.5), {"solver": "ddim(eta=0.5)"}),
        (Reading("x", sampler="DDIM", eta=50.0), {"solver": "ddim"}),
        (Reading("x", sampler="Euler", eta=0.5), {"solver": "euler"}),
        (Reading("x", sampler="DPM fast", schedule="Turbo"), {}),
        (Reading("x", sampler="Custom", schedule="Custom"), {}),
        (
            Reading("x", sampler="euler_cfg_pp", cfg_scale=0.8),
            {"solver": "euler", "cfg_scale": 0.8, "guidance": "cfg++(0.8)"},
        ),
        (Reading("x", sampler="euler_cfg_pp", cfg_scale=7.0), {"solver": "euler", "cfg_scale": 7.0}),
    ],
)
def test_likeness(reading: Reading, wanted: dict[str, Any]) -> None:
    made = like(reading, (128, 128))
    assert made.settings == wanted
    assert ("sampler" in made.left_out) == (
        "solver" not in wanted or ("cfg_pp" in str(reading.sampler) and "guidance" not in wanted)
    )


def test_numbers_in_strings() -> None:
    assert [whole(text) for text in (" 7 ", "-7", "\x1f7", "7.5", "", "1_0")] == [7, -7, None, None, None, None]
    assert [real(text) for text in (" 7.5 ", "1e3", "\x1f7", "inf", "nan", "1e999", "")] == [7.5, 1e3] + [None] * 5


def test_prompts_become_one_line() -> None:
    assert in_one_line("a \n\x1b[31m b\r\n\u2028c\ud800") == "a [31m b c\N{REPLACEMENT CHARACTER}"
    assert in_one_line(" " * 1_000_000 + "a") == "a"
    assert in_one_line("a\0b") == "a b"


@pytest.mark.parametrize(
    ("rules", "noise", "older"),
    [(1, "independent", True), (2, "independent", False), (2, "torch", True), (3, "torch", False)],
)
def test_what_would_be_drawn_otherwise_is_said_to_be_so(rules: int, noise: str, older: bool) -> None:
    assert bool(reading_of_own({"prompt": "a", "rules": rules, "noise": noise}).notes) == older


def test_what_an_earlier_unnoise_drew_is_said_to_be_so() -> None:
    own = read_settings(OTHERS.parent / "guidance-cfg-7.png")
    assert own is not None
    assert own.notes == (OLDER,)
    assert own.cfg_scale == 7, "its record has 2, the option's, and it was drawn with cfg(7)"
    grid = read_settings(OTHERS.parent / "grid.png")
    assert grid is not None
    assert (grid.prompt, grid.steps, grid.left_out["steps of 4 pictures"]) == ("red apple", None, "2 | 4")


@pytest.mark.parametrize("name", REAL)
def test_damaged_files_are_no_crash(name: str) -> None:
    """Bytes changed, left out and put in, anywhere: a reading with sane fields, none, or a ValueError."""
    whole, dice = (OTHERS / name).read_bytes(), np.random.default_rng(5)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(int(dice.integers(1, 6))):
            place, what = int(dice.integers(len(data))), int(dice.integers(3))
            data[place : place + (1, 1, 0)[what]] = dice.bytes((0, 1, 4)[what])
        try:
            texts = texts_of(bytes(data[: int(dice.integers(len(data)))] if dice.random() < 0.2 else data))
        except ValueError:
            continue
        for reader in READERS:
            reading = reader(texts)
            if reading is not None:
                like(reading, (128, 128))
