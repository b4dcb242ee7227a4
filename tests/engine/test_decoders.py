"""What decodes in place of a model's own autoencoder: tiny autoencoders in everybody's files, and linear maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tiny import KL, lively
from unnoise.autoencoders.kl import KLAutoencoder
from unnoise.autoencoders.linear import LinearAutoencoder
from unnoise.autoencoders.taesd import TAESDConfig, TinyAutoencoder
from unnoise.engine import decoders
from unnoise.engine.decoders import cheap, fingerprint, open_tiny, recorded, with_decoder, with_preview
from unnoise.engine.engine import Engine
from unnoise.engine.metadata import about_model
from unnoise.engine.model import Model
from unnoise.errors import UnnoiseError
from unnoise.weights import index
from unnoise.weights.keys import state_to_theirs
from unnoise.weights.names import taesd
from weights.test_opening import write_gguf

DECODER = TAESDConfig(width=4, encoder=(), decoder=(1, 1, 1, 1))
PROMPT = "red apple"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNNOISE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def published(engine: Engine) -> Model:
    """The tiny model as if it were one of Stable Diffusion."""
    return engine.model.with_part("autoencoder", engine.model.autoencoder, family="sd1")


def write(path: Path, config: TAESDConfig = DECODER, layout: str = "taesd", prefix: str = "") -> TinyAutoencoder:
    """Writes a tiny autoencoder with random weights, and returns it."""
    torch.manual_seed(3)
    module = lively(TinyAutoencoder(config), 0.05)
    state = state_to_theirs(taesd.table(config, layout), module.state_dict())
    path.parent.mkdir(exist_ok=True)
    save_file({prefix + name: tensor.contiguous() for name, tensor in state.items()}, path)
    return module


def bits(image: Image.Image) -> bytes:
    return np.asarray(image).tobytes()


@pytest.mark.parametrize("config", [DECODER, replace(DECODER, encoder=(1, 1, 1, 1))], ids=["half", "both"])
@pytest.mark.parametrize(
    ("layout", "prefix"),
    [("taesd", ""), ("diffusers", ""), ("comfyui", ""), ("sd.cpp", ""), ("sd.cpp", "first_stage_model.")],
)
def test_every_programs_files_open(config: TAESDConfig, layout: str, prefix: str, tmp_path: Path) -> None:
    if layout == "taesd" and config.encoder:
        pytest.skip("TAESD's own files hold one half each")
    own = write(tmp_path / "a.safetensors", config, layout, prefix)
    part = open_tiny(tmp_path / "a.safetensors")
    assert (part.layout, part.config) == (layout, config)
    state = dict(part.tensors())
    assert state.keys() == own.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in own.state_dict().items())


def test_gguf_opens(tmp_path: Path) -> None:
    own = write(tmp_path / "a.safetensors").half()
    state = state_to_theirs(taesd.table(DECODER, "sd.cpp"), own.state_dict())
    write_gguf(tmp_path / "a.gguf", {f"first_stage_model.{name}": tensor for name, tensor in state.items()})
    assert all(torch.equal(tensor, own.state_dict()[name]) for name, tensor in open_tiny(tmp_path / "a.gguf").tensors())


def test_what_does_not_fit_is_refused_by_name(engine: Engine, tmp_path: Path) -> None:
    write(tmp_path / "sixteen.safetensors", replace(DECODER, latent_channels=16))
    with pytest.raises(UnnoiseError, match=r"other latents \(16 channels, .*than the model's \(4 channels"):
        with_decoder(engine.model, str(tmp_path / "sixteen.safetensors"))
    write(tmp_path / "short.safetensors", replace(DECODER, decoder=(1, 1)))
    with pytest.raises(UnnoiseError, match="4 channels, 2 pixels a cell"):
        with_decoder(engine.model, str(tmp_path / "short.safetensors"))
    write(tmp_path / "encoder.safetensors", TAESDConfig(width=4, encoder=(1, 1, 1, 1), decoder=()))
    with pytest.raises(UnnoiseError, match=r"no tiny decoder: it is a tiny autoencoder .*one half"):
        with_decoder(engine.model, str(tmp_path / "encoder.safetensors"))
    torch.save({"1.bias": torch.zeros(4)}, tmp_path / "taesd_decoder.pth")
    with pytest.raises(UnnoiseError, match="can run code") as caught:
        with_decoder(engine.model, str(tmp_path / "taesd_decoder.pth"))
    assert "unnoise convert" in str(caught.value.hint)
    with pytest.raises(UnnoiseError, match="no file, folder or listed"):
        with_decoder(engine.model, "nothing")


def test_a_tiny_one_decodes_and_the_own_encodes(engine: Engine, tmp_path: Path) -> None:
    tiny = write(tmp_path / "taesd_decoder.safetensors")
    drawn = Engine(with_decoder(engine.model, str(tmp_path / "taesd_decoder.safetensors")))
    start = engine.generate(PROMPT, seed=1)[0]
    own, steps = (list(each.steps(PROMPT, seed=2, start=start)) for each in (engine, drawn))
    assert torch.equal(steps[0].start.x0, own[0].start.x0), "encoded by the model's own"
    assert torch.equal(steps[-1].step.run.x, own[-1].step.run.x)
    wanted = engine.model.decode(steps[-1].step.run.x)[0]
    assert bits(own[-1].finished) == bits(wanted)
    assert bits(steps[-1].finished) == bits(steps[-1].picture) != bits(wanted)
    assert bits(steps[-1].finished) == bits(drawn.generate(PROMPT, seed=2, start=start)[0])
    pixels = drawn.model.pixels(steps[-1].step.run.x)
    assert torch.equal(pixels, tiny.decode(steps[-1].step.run.x))
    about = about_model(drawn.model)
    assert about["decoder"]["name"] == "taesd_decoder"
    assert {name: about[name] for name in ("name", "sha256")} == about_model(engine.model)


def test_tiny_is_taken_from_the_list_or_fitted(
    published: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(cheap(published).decoder, LinearAutoencoder)
    whole = with_decoder(published, "tiny")
    assert isinstance(whole.decoder, LinearAutoencoder)
    assert "the list of models has no tiny autoencoder for sd1" in capsys.readouterr().err
    write(tmp_path / "models" / "a-taef1.safetensors", replace(DECODER, latent_channels=16))
    write(tmp_path / "models" / "taesd_decoder.safetensors")
    write(tmp_path / "models" / "a-taesd.safetensors", replace(DECODER, decoder=(1, 1)))
    index.add(tmp_path / "models")
    chosen = cheap(published)
    assert chosen.about["name"] == "taesd_decoder"
    assert "note: the decoder decodes other latents (4 channels, 2 pixels" in capsys.readouterr().err
    assert with_decoder(published, "taesd_decoder").record["decoder"] == chosen.about
    assert recorded(chosen.about) == str(tmp_path / "models" / "taesd_decoder.safetensors")
    index.remove(tmp_path / "models")
    assert recorded(chosen.about) is None
    assert recorded({"kind": "linear"}) == "linear"
    assert recorded(None) is recorded("x") is recorded({"hash": ["x"]}) is None


def test_a_map_is_fitted_once_for_each_autoencoder(
    published: Model, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = cheap(published, "linear")
    (file,) = (home / "linear").iterdir()
    fit = decoders.fit
    monkeypatch.setattr(decoders, "fit", lambda *_: pytest.fail("it was kept"))
    assert cheap(published, "linear")[1:] == first[1:]
    monkeypatch.setattr(decoders, "fit", fit)
    whole = file.read_bytes()
    for damaged in (whole[:500], b"", whole.replace(b"map.bias", b"map.bios"), whole[:-4] + b"\0\0\xc0\x7f"):
        file.write_bytes(damaged)
        assert cheap(published, "linear").about == first.about
        assert len(file.read_bytes()) == len(whole)
    torch.manual_seed(9)
    other = published.with_part("autoencoder", lively(KLAutoencoder(KL)))
    assert cheap(other, "linear").about != first.about
    assert len(list((home / "linear").iterdir())) == 2
    file.unlink()
    file.mkdir()
    capsys.readouterr()
    assert cheap(published, "linear").about == first.about
    assert "fitted again next time" in capsys.readouterr().err


def test_a_fingerprint_hears_of_every_weight() -> None:
    torch.manual_seed(0)
    module = lively(KLAutoencoder(KL))
    before = fingerprint(module)
    for tensor in module.state_dict().values():
        tensor.view(-1)[-1 if tensor.numel() < decoders.SAMPLE else 0] += 1
        assert fingerprint(module) != before
        before = fingerprint(module)


def test_previews_are_cheap_where_the_own_decoder_is_dear(
    published: Model, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size = (64, 64)
    assert with_preview(published, size) is published, "a small decoder is quick"
    monkeypatch.setattr(decoders, "DEAR", 0)
    assert with_preview(engine.model, size) is engine.model, "a model of ours keeps its own"
    plain = with_decoder(published, "own")
    assert with_preview(plain, size) is plain
    chosen = with_decoder(published, "linear")
    assert with_preview(chosen, size) is chosen
    capsys.readouterr()
    model = with_preview(published, size)
    (line,) = capsys.readouterr().err.splitlines()
    assert "--decoder own" in line
    calls: list[Any] = []
    decode = model.autoencoder.decode
    monkeypatch.setattr(model.autoencoder, "decode", lambda z: calls.append(z) or decode(z))
    steps = list(Engine(model).steps(PROMPT, seed=1, steps=3))
    assert all(step.picture.size == step.noisy.size for step in steps)
    calls.clear()
    assert steps[1].picture.size == steps[1].noisy.size
    assert not calls, "no frame costs a call of the own decoder"
    assert bits(steps[-1].finished) == bits(engine.generate(PROMPT, seed=1, steps=3)[0])
    assert calls, "the finished picture does"
    assert "decoder" not in about_model(model)


def test_pixels_are_never_decoded_by_another(engine: Engine) -> None:
    from unnoise.autoencoders.folded import Folded

    model = Model.__new__(Model)
    model.record, model.autoencoder = {}, Folded()  # type: ignore[assignment]
    with pytest.raises(UnnoiseError, match="draws pixels"):
        cheap(model)
