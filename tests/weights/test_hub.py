"""Models by their names on a hub: the cache first, nothing fetched unasked, each refusal in one line."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unnoise import extras
from unnoise.errors import UnnoiseError
from unnoise.weights import hub, index
from unnoise.weights.hub import HubName, cached, locate, parse
from unnoise.weights.hub_files import plan
from unnoise.weights.lookup import DEFAULT, resolve
from weights import written
from weights.fake_hub import COMMIT, FakeHub, serving
from weights.written import SD1, SDXL, diffusers_unet, diffusers_vae, head, write

WEIGHTS = "diffusion_pytorch_model"
PARTS = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
LISTING = {"_class_name": "P", **PARTS, "safety_checker": ["s", "S"], "tokenizer": ["transformers", "CLIPTokenizer"]}


def content(shapes: dict[str, tuple[int, ...]], fill: int = 0) -> bytes:
    header, count = head(shapes, None)
    return header + bytes([fill]) * count


def files_of_a_pipeline() -> dict[str, bytes]:
    return {
        "model_index.json": json.dumps(LISTING).encode(),
        "README.md": b"# hello",
        "unet/config.json": b"{}",
        f"unet/{WEIGHTS}.safetensors": content(diffusers_unet(768)),
        f"unet/{WEIGHTS}.fp16.safetensors": content(diffusers_unet(768), 1),
        f"unet/{WEIGHTS}.non_ema.safetensors": content(diffusers_unet(768), 2),
        f"unet/{WEIGHTS}.bin": b"\x80\x02}q\0.",
        "vae/config.json": b'{"scaling_factor": 0.18215}',
        f"vae/{WEIGHTS}.safetensors": content(diffusers_vae()),
        "safety_checker/model.safetensors": content({"a": (9,)}),
        "tokenizer/vocab.json": b'{"a": 1}',
        "tokenizer/merges.txt": b"a b",
        "v1-5-pruned.safetensors": content(SD1),
        "v1-5-pruned.ckpt": b"\x80\x02}q\0.",
    }


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, list and working folder, and no setting or token of whoever runs this."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("UNNOISE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        server.repositories["o/sd"] = files_of_a_pipeline()
        server.repositories["o/one"] = {"xl.safetensors": content(SDXL), "README.md": b"#"}
        yield server


def refused(text: str, download: bool = True) -> str:
    with pytest.raises(UnnoiseError) as caught:
        resolve(text, download)
    message = str(caught.value)
    assert "\n" not in message
    assert "secret" not in message
    return message


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("owner/name", HubName("owner/name")),
        ("stabilityai/sd-vae-ft-mse@main", HubName("stabilityai/sd-vae-ft-mse", "main")),
        ("o/n.v1@refs/pr/3", HubName("o/n.v1", "refs/pr/3")),
        ("o/n/a.safetensors", HubName("o/n", "", "a.safetensors")),
        ("o/n@v1/unet/a b.safetensors", HubName("o/n", "v1", "unet/a b.safetensors")),
        ("name", None), ("/o/n", None), ("./o", None), ("../o/n", None), ("o/../n", None), ("o/n/..", None),
        ("o/n/../../x.safetensors", None), ("o/n@../x", None), ("o--x/n", None), ("o/n.safetensors", None),
        ("~/o", None), ("o/n/", None), ("", None), ("o/n\nx", None),
    ],
)  # fmt: skip
def test_names(text: str, name: HubName | None) -> None:
    assert parse(text) == name
    assert name is None or str(name) == text


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.cache() == tmp_path / "hf/hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    assert hub.cache() == tmp_path / "elsewhere"
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub.cache() == tmp_path / ".cache/huggingface/hub"


def test_what_is_cached_is_opened_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # not even the library is needed
    vae = f"{WEIGHTS}.safetensors"
    folder = written.cached(hub.cache(), "o/vae", {vae: diffusers_vae(), "config.json": "{}"})
    one = written.cached(hub.cache(), "o/one", {"xl.safetensors": SDXL})
    two = written.cached(hub.cache(), "o/two", {"a.safetensors": SDXL, "b.safetensors": SD1})
    for download in (False, True):
        assert resolve("o/vae", download) == resolve("o/vae@main", download) == folder
        assert resolve(f"o/vae@{folder.name}", download) == folder
        assert resolve("o/one", download) == one / "xl.safetensors"
        assert resolve("o/two/b.safetensors", download) == two / "b.safetensors"
    assert "holds these files of weights: a.safetensors, b.safetensors; name one: o/two/a.safetensors" in refused(
        "o/two"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve("o/one", True) == one / "xl.safetensors"


def test_half_a_model_in_the_cache_is_none() -> None:
    listing = json.dumps(LISTING)
    unet = {"model_index.json": listing, "unet/config.json": "{}", f"unet/{WEIGHTS}.safetensors": diffusers_unet(768)}
    folder = written.cached(hub.cache(), "o/half", unet)
    assert cached(HubName("o/half")) is None
    written.cached(hub.cache(), "o/half", {**unet, f"vae/{WEIGHTS}.safetensors": diffusers_vae()})
    assert cached(HubName("o/half")) == folder
    first = {"config.json": "{}", "model-00001-of-00002.safetensors": diffusers_vae()}
    written.cached(hub.cache(), "o/shards", first)
    assert cached(HubName("o/shards")) is None
    written.cached(hub.cache(), "o/shards", {**first, "model-00002-of-00002.safetensors": diffusers_vae()})
    assert cached(HubName("o/shards")) is not None


def test_nothing_is_fetched_unasked(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    text = refused("o/one", download=False)
    assert text.startswith("no file, folder or listed model is called o/one, and the hub's cache at ")
    assert text.endswith("has none; add --download to fetch it, or name a path")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "and HF_HUB_OFFLINE is set; unset it and add --download" in refused("o/one")
    assert fake.asked == []
    assert not hub.cache().exists()


def test_the_size_is_told_where_the_cache_knows_it(fake: FakeHub) -> None:
    sizes = {name: {"size": len(data)} for name, data in fake.repositories["o/one"].items()}
    snapshot = written.cached(hub.cache(), "o/one", {"README.md": "#"})
    (snapshot.parent.parent / "trees").mkdir()
    (snapshot.parent.parent / "trees" / f"{snapshot.name}.json").write_text(json.dumps({"files": sizes}))
    expected = len(fake.repositories["o/one"]["xl.safetensors"]) / 1000
    assert f"add --download to fetch it ({expected:.2f} kB), or" in refused("o/one", download=False)
    (snapshot.parent.parent / "trees" / f"{snapshot.name}.json").write_text('{"files": 3}')
    assert "add --download to fetch it, or" in refused("o/one", download=False)


def test_a_model_is_fetched_where_it_is_asked_for(fake: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    path = resolve("o/sd", download=True)
    assert path == hub.cache() / "models--o--sd/snapshots" / COMMIT
    there = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    assert there == {
        "model_index.json", "unet/config.json", f"unet/{WEIGHTS}.fp16.safetensors", "vae/config.json",
        f"vae/{WEIGHTS}.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt",
    }, "one variant of each part, no pickle, no checker"  # fmt: skip
    assert set(fake.fetched()) == there
    err = capsys.readouterr().err
    size = sum(len(fake.repositories["o/sd"][name]) for name in there) / 1000
    assert err == (
        f"note: fetching o/sd to {hub.cache()}: {size:.2f} kB, 7 files, in the variant fp16, which is half as large\n"
    )
    count = len(fake.asked)
    assert resolve("o/sd") == resolve("o/sd", download=True) == path
    assert len(fake.asked) == count, "the second time nothing is asked"
    assert index.add(hub.cache()).entries[-1].kind == "checkpoint", "the list understands what was fetched"
    assert all("torch" not in agent and "agent/" not in agent for agent in fake.agents), "no telemetry"


def test_one_file_is_fetched(fake: FakeHub) -> None:
    path = resolve("o/sd@v1/v1-5-pruned.safetensors", download=True)
    assert path.read_bytes() == fake.repositories["o/sd"]["v1-5-pruned.safetensors"]
    assert fake.fetched() == ["v1-5-pruned.safetensors"]
    assert resolve("o/sd@v1/v1-5-pruned.safetensors") == path
    assert resolve(f"o/sd@{COMMIT}/v1-5-pruned.safetensors") == path
    assert resolve("o/one", download=True).name == "xl.safetensors"
    assert cached(HubName("o/sd")) is None, "a file of it is not the whole"


def test_a_broken_connection_goes_on_where_it_broke(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
    big = content({"a": (500_000,)}, 7)
    fake.repositories["o/big"] = {"big.safetensors": big}
    fake.cut["big.safetensors"] = 300_000
    assert resolve("o/big", download=True).read_bytes() == big
    ranges = [line for line in fake.asked if "bytes=" in line]
    assert len(ranges) == 1
    assert ranges[0].startswith("GET o/big/resolve/")
    assert 100_000 <= int(ranges[0].partition("bytes=")[2][:-1]) <= 300_000


def test_what_was_fetched_whole_is_kept_when_the_rest_fails(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import file_download

    real, done = file_download.http_get, []

    def failing(url: str, *args: Any, **options: Any) -> None:
        if url.endswith(f"unet/{WEIGHTS}.fp16.safetensors"):
            raise KeyboardInterrupt
        done.append(url)
        real(url, *args, **options)

    with monkeypatch.context() as broken:
        broken.setattr(file_download, "http_get", failing)
        with pytest.raises(KeyboardInterrupt):
            resolve("o/sd", download=True)
    assert len(done) == 6
    assert cached(HubName("o/sd")) is None, "half of it is not taken for the whole"
    fake.asked.clear()
    resolve("o/sd", download=True)
    assert fake.fetched() == [f"unet/{WEIGHTS}.fp16.safetensors"]


def test_gated_models_name_the_page_and_the_token(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.gated.add("o/one")
    text = "o/one is gated: its owner gives it to those who accept the terms; accept them at "
    assert refused("o/one") == f"{text}{fake.address}/o/one, then set HF_TOKEN to a token of that account"
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert refused("o/one").startswith(text)
    assert fake.tokens == {"Bearer secret"}, "it was sent, and is not printed"
    monkeypatch.setenv("HF_TOKEN", "good")
    assert resolve("o/one", download=True).name == "xl.safetensors"


def test_refusals_are_one_line_each(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    fake.repositories["o/pickles"] = {"model.ckpt": b"", "unet/model.bin": b""}
    fake.repositories["o/gguf"] = {"model.gguf": b""}
    fake.repositories["o/none"] = {"README.md": b""}
    fake.repositories["o/two"] = {"a.safetensors": b"", "b.safetensors": b""}
    fake.repositories["o/deep"] = {"x/a.safetensors": b""}
    assert "the hub has no model o/nothing, or it is private; check the spelling" in refused("o/nothing")
    assert f"o/one has no revision 'v9'; see {fake.address}/o/one/tree/main" in refused("o/one@v9")
    assert "o/one has no file no.safetensors; it has xl.safetensors" in refused("o/one/no.safetensors")
    assert "o/sd/v1-5-pruned.ckpt is no safetensors file, and nothing else is taken" in refused("o/sd/v1-5-pruned.ckpt")
    assert "o/pickles has its weights as pickles alone (model.ckpt, unet/model.bin)" in refused("o/pickles")
    assert "o/gguf has GGUF files alone (model.gguf)" in refused("o/gguf")
    assert "o/none has no weights" in refused("o/none")
    assert "o/two holds these files of weights: a.safetensors, b.safetensors; name one: o/two/a.saf" in refused("o/two")
    assert "name one: o/deep/x/a.safetensors" in refused("o/deep")
    assert "o/ends- cannot be fetched (Repo id must" in refused("o/ends-")
    fake.repositories["o/sd"] = {k: v for k, v in fake.repositories["o/sd"].items() if not k.startswith("vae/d")}
    fake.asked.clear()
    assert "o/sd has no whole safetensors for vae; name another revision" in refused("o/sd")
    assert fake.fetched() == ["model_index.json"], "this is known before the rest is fetched"
    for status, what in (
        (401, "refuses o/one to this token"),
        (403, "refuses o/one"),
        (500, "answers with status 500"),
    ):
        fake.status = status
        assert what in refused("o/one")


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")  # nobody listens
        assert "cannot be reached (ConnectError); check the network and try again" in refused("o/one")


def test_a_full_disk(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as small:
        small.setattr(hub.shutil, "disk_usage", lambda path: usage(10, 9, 5))
        text = refused("o/one")
    assert "kB, and the disk of the hub's cache at " in text
    assert "has 5 B left; free some space, or set HF_HUB_CACHE to a folder on another disk" in text
    assert fake.fetched() == []

    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("huggingface_hub.file_download.http_get", full)
        assert "the disk is full" in refused("o/one")
    assert resolve("o/one", download=True).is_file(), "nothing of it stands in the way"


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    text = "models fetched from a Hugging Face hub need huggingface_hub, which is not installed"
    assert refused("o/one") == f'{text}; pip install "unnoise[hub]"'
    assert extras.LIBRARIES["huggingface_hub"][0] == "hub"


PLANS: list[tuple[list[str], list[str]]] = [
    (["config.json", f"{WEIGHTS}.safetensors", f"{WEIGHTS}.fp16.safetensors", "sdxl_vae.safetensors"],
     ["config.json", f"{WEIGHTS}.fp16.safetensors"]),
    (["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.bin",
      "model.safetensors.index.json"],
     ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
      "model.safetensors.index.json"]),
    (["model.json", "denoiser-01-of-01.safetensors", "tokenizer.json", "x/y.safetensors", "pictures/a.png"],
     ["model.json", "denoiser-01-of-01.safetensors", "tokenizer.json"]),
    (["model_index.json", "../x.json", "../y.safetensors", "unet/config.json", f"unet/{WEIGHTS}.safetensors"],
     ["model_index.json", "unet/config.json", f"unet/{WEIGHTS}.safetensors"]),
    (["model_index.json", "unet/config.json", f"unet/{WEIGHTS}-00001-of-00002.safetensors",
      f"unet/{WEIGHTS}-00002-of-00002.safetensors", f"unet/{WEIGHTS}.safetensors.index.json",
      f"unet/{WEIGHTS}.fp16.safetensors", "t/model.fp16-00001-of-00001.safetensors", "t/model.safetensors",
      "t/model.safetensors.index.fp16.json", "t/pytorch_model.bin.index.json"],
     ["model_index.json", "unet/config.json", f"unet/{WEIGHTS}.fp16.safetensors", "t/model.safetensors.index.fp16.json",
      "t/model.fp16-00001-of-00001.safetensors"]),
    (["../x.safetensors", "/etc/x.safetensors", "a.safetensors", "a.ckpt", "README.md"], ["a.safetensors"]),
]  # fmt: skip


@pytest.mark.parametrize(("files", "wanted"), PLANS)
def test_what_is_fetched_of_a_repository(files: list[str], wanted: list[str]) -> None:
    assert sorted(plan("o/n", "", dict.fromkeys(files, 1)).files) == sorted(wanted)


# every name


def test_what_a_name_means_first(tmp_path: Path) -> None:
    """A path, then "default", then the list, then the hub."""
    write(tmp_path / "models/one.safetensors", SD1)
    index.add(tmp_path / "models")
    assert resolve("one") == tmp_path / "models/one.safetensors"
    assert resolve("default") == DEFAULT
    assert (DEFAULT / "model.json").is_file()
    (tmp_path / "one").mkdir()
    (tmp_path / "default").mkdir()
    assert resolve("one") == Path("one")
    assert resolve("default") == Path("default")
    written.cached(hub.cache(), "o/n", {"n.safetensors": SDXL})
    write(tmp_path / "listed/o/n.safetensors", SD1)
    assert resolve("o/n").name == "n.safetensors"
    assert resolve("o/n").is_relative_to(hub.cache())
    index.add(tmp_path / "listed")
    assert resolve("o/n") == tmp_path / "listed/o/n.safetensors"
    assert refused("onne").startswith("no file, folder or listed model is called 'onne'; did you mean one?")
    assert refused("models/none.safetensors").startswith("no file, folder or listed model is called")


def test_a_damaged_list_is_no_matter_to_a_path(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / index.LIST).write_text("{")
    (tmp_path / "x").mkdir()
    assert resolve("x") == Path("x")
    assert resolve("default") == DEFAULT
    assert "is damaged" in refused("one")


def test_locate_takes_the_name_apart() -> None:
    with pytest.raises(UnnoiseError, match="add --download"):
        locate(HubName("o/n"))
