"""Format 2 of model folders: free names, and settings of paths and predictions; and format 1, which opens as before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tiny
from unnoise.core.denoiser import Denoiser
from unnoise.engine.load import load_engine
from unnoise.engine.metadata import weights_sha256
from unnoise.errors import UnnoiseError
from unnoise.networks.unet import UNet
from unnoise.paths.vp import VP
from unnoise.predictions.edm import EDM
from unnoise.weights.model import load_model, save_model
from unnoise.weights.record import read_record
from unnoise.weights.verify import verify_model
from weights.hostile import Hostile, pair, same

# names


def test_parts_have_free_names(tmp_path: Path) -> None:
    """Also those that begin as another does: a tensor of text.a.image looks like one of text.a."""
    parts = {name: pair(seed) for seed, name in enumerate(("text.a", "text.a.image", "text.a.text", "control.canny"))}
    save_model(tmp_path / "m", parts, dtype=torch.float32)
    found, record = load_model(tmp_path / "m", list(parts))
    assert list(record["parts"]) == list(parts)
    assert all(same(found[name], part) for name, part in parts.items())
    assert same(load_model(tmp_path / "m", ["text.a.image"])[0]["text.a.image"], parts["text.a.image"])


def test_a_tensor_that_two_parts_could_have_is_refused(tmp_path: Path) -> None:
    parts = {"text.a": pair(1), "text.a.image": pair(2)}
    save_model(tmp_path / "m", parts, dtype=torch.float32)
    record = json.loads((tmp_path / "m/model.json").read_text())
    both = record["parts"]["text.a"]["shards"] | record["parts"]["text.a.image"]["shards"]
    for entry in record["parts"].values():
        entry["shards"] = both
    (tmp_path / "m/model.json").write_text(json.dumps(record))
    with pytest.raises(UnnoiseError, match=r"unknown weight 'text\.a\.image\."):
        load_model(tmp_path / "m", ["text.a"])


@pytest.mark.parametrize("name", ["", ".", "a..b", "../a", "a/b", "Text", "a b", "-a", "a.", "x" * 65, "a\n"])
def test_names_that_are_no_names_are_refused(name: str, tmp_path: Path, hostile: Hostile) -> None:
    with pytest.raises(UnnoiseError, match="no part of a model can be called"):
        save_model(tmp_path / "m", {name: pair(0)})
    assert not (tmp_path / "m").exists()
    hostile.change(lambda record: record["parts"].update({name: record["parts"]["text"]}))
    hostile.refused("no part of a model can be called")


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/x", "..", ""])
def test_texts_stay_in_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnnoiseError, match="no name for a file"):
        save_model(tmp_path / "m", {"pair": pair(0)}, texts={name: "x"})


# settings


def test_denoisers_keep_path_and_prediction_with_their_settings(tmp_path: Path) -> None:
    """Two of them, as for a guidance by a weaker network."""
    strong = Denoiser(UNet(tiny.UNET), VP(beta_max=25), EDM(sigma_data=0.6), "log-sigma")
    weak = Denoiser(UNet(tiny.UNET), VP(), EDM(), "index")
    save_model(tmp_path / "m", {"denoiser": strong, "weak": weak})
    entries = json.loads((tmp_path / "m/model.json").read_text())["parts"]
    assert (entries["denoiser"]["path"], entries["denoiser"]["prediction"]) == (
        "vp(beta_max=25)",
        "edm(sigma_data=0.6)",
    )
    assert (entries["weak"]["path"], entries["weak"]["prediction"]) == ("vp", "edm")
    found, _ = load_model(tmp_path / "m", ["denoiser", "weak"])
    for name, part in (("denoiser", strong), ("weak", weak)):
        again = found[name]
        assert isinstance(again, Denoiser)
        assert again.noise_label == part.noise_label
        for t in (0.0, 1e-3, 0.3, 1.0):
            level = part.path.at(t)
            assert again.path.at(t) == level
            assert again.prediction.target(level) == part.prediction.target(level)
    assert strong.path.at(0.5) != weak.path.at(0.5)


class OwnPath(VP):
    """Registered nowhere."""


def test_a_path_that_cannot_be_written_is_refused_before_anything_is(tmp_path: Path) -> None:
    with pytest.raises(UnnoiseError, match="OwnPath is not registered"):
        save_model(tmp_path / "m", {"denoiser": Denoiser(UNet(tiny.UNET), OwnPath(), EDM())})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path", ["vp(beta_max=", "vp(beta_max=0.01)", "vp(x=1)", "vp(1, 2, 3)", "cosine(num_levels=1e9)"]
)
def test_settings_that_make_no_path_are_refused(path: str, hostile: Hostile) -> None:
    hostile.change(lambda record: record["parts"]["denoiser"].update(path=path))
    hostile.refused("vp|cosine")


def test_a_part_is_what_its_kind_says(hostile: Hostile) -> None:
    for kind in ("encoders", "autoencoders"):
        hostile.change(lambda record, kind=kind: record["parts"]["denoiser"].update(kind=kind))  # type: ignore[misc]
        hostile.refused("is called 'unet'")
    for wrong in ("solvers", "recipes", "os", None, []):
        hostile.change(lambda record, wrong=wrong: record["parts"]["denoiser"].update(kind=wrong))  # type: ignore[misc]
        hostile.refused("a part is one of networks, encoders, autoencoders")
    hostile.change(lambda record: record["parts"]["denoiser"].update(kind="networks"))
    hostile.change(lambda record: record["parts"]["text"].update(path="flow"))
    hostile.refused("encoders have no path")


# format 1


def test_format_1_opens_as_before(hostile: Hostile, tiny_model: Path) -> None:
    hostile.as_format_1()
    old, new = (load_model(path, tiny.components(), dtype=None) for path in (hostile.path, tiny_model))
    assert all(same(old[0][part], new[0][part]) for part in new[0])
    for record in (old[1], new[1]):
        assert record["format"] == 2
        for entry in record["parts"].values():
            entry.pop("shards"), entry.pop("dtype", None)
    assert old[1]["parts"] == new[1]["parts"]
    pictures = [load_engine(path, "cpu").generate("red", seed=3)[0].tobytes() for path in (hostile.path, tiny_model)]
    assert pictures[0] == pictures[1]
    verify_model(hostile.path)


def test_the_identity_of_weights_does_not_know_the_format(hostile: Hostile) -> None:
    hostile.as_format_1()
    old = json.loads((hostile.path / "model.json").read_text())
    assert weights_sha256(read_record(hostile.path)) == weights_sha256(old)


def test_format_1_is_written_again_as_format_2(hostile: Hostile, tmp_path: Path) -> None:
    hostile.as_format_1()
    parts, _ = load_model(hostile.path, ["text", "denoiser"], dtype=None)
    save_model(tmp_path / "new", parts, dtype=torch.float32)
    assert json.loads((tmp_path / "new/model.json").read_text())["format"] == 2
    again, _ = load_model(tmp_path / "new", ["text", "denoiser"], dtype=None)
    assert all(same(again[part], parts[part]) for part in parts)


def test_format_1_is_no_way_around_the_checks(hostile: Hostile) -> None:
    hostile.as_format_1()
    good = (hostile.path / "model.json").read_text()
    for change, match in (
        (lambda record: record["components"]["denoiser"]["config"].update(depth=1_000_000), "does not describe"),
        (lambda record: record["components"].pop("text"), "has no text"),
        (lambda record: record.update(components=[]), "is damaged"),
        (lambda record: record["files"].update({"../x.safetensors": ""}), "lies outside"),
        (lambda record: record["files"].pop("weights-02-of-02.safetensors"), "do not fit|wants more"),
    ):
        (hostile.path / "model.json").write_text(good)
        hostile.change(change)  # type: ignore[arg-type]
        hostile.refused(match)
    (hostile.path / "model.json").write_text(good)
    hostile.change(lambda record: record["components"].update(weak=record["components"]["denoiser"]))
    with pytest.raises(UnnoiseError, match="does not describe a weak"):
        load_model(hostile.path, ["weak"])
