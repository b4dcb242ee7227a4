"""From a folder to an engine: which model, which device, which precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from os.path import exists, isfile
from pathlib import Path
from typing import Any, SupportsIndex

import torch
from torch import nn

from unnoise.core import checks
from unnoise.encoders.tokenizer import Tokenizer
from unnoise.engine.conditioner import Layout
from unnoise.engine.decoders import with_decoder
from unnoise.engine.engine import Engine
from unnoise.engine.fit import check_fit, check_tower
from unnoise.engine.foreign import Choices, load_foreign, tokenizer_file
from unnoise.engine.model import Model, is_tower
from unnoise.engine.words import WORDS, read_vocabulary
from unnoise.errors import UnnoiseError
from unnoise.files import expanded
from unnoise.kernels.compiled import compile_network
from unnoise.kernels.forked import check_threads
from unnoise.weights.config import from_json
from unnoise.weights.model import load_model
from unnoise.weights.opening import is_foreign
from unnoise.weights.record import DEFAULT, MODEL, read_file, read_record

PARTS = ("autoencoder", "text", "denoiser")


def default_model() -> Path:
    """The folder of the model that comes with the package."""
    return DEFAULT


def default_pictures() -> Path:
    """The folder of the index of that model's training pictures, which ``study.nearest`` opens."""
    return default_model().with_name("default-pictures")


def model_folder(path: PathLike[str] | str) -> Path:
    """The model folder that a path means: itself, the ``model`` folder of a finished training, or "default"'s.

    Raises:
        UnnoiseError: it is no path.
    """
    path = expanded(checks.path("model", path))
    if str(path) == "default" and not path.exists():
        return default_model()
    return path / "model" if not isfile(path / MODEL) and isfile(path / "model" / MODEL) else path


def named_model(model: PathLike[str] | str, download: bool = False) -> Path:
    """The file or folder that a path means, or a name of the list of models or of a hub; see ``weights.lookup``.

    Raises:
        UnnoiseError: there is none.
    """
    path = expanded(checks.path("model", model))
    if str(path) != "default" and not exists(path):
        from unnoise.weights.lookup import resolve  # large tables, which loading a model of ours does without

        path = resolve(str(path), download)
    return model_folder(path)


def choose_device(device: torch.device | str) -> torch.device:
    """That device, or the one of that name; "auto" takes a CUDA GPU where there is one.

    Raises:
        UnnoiseError: the device is not there.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    target = checks.device("device", device, "use cpu, cuda or auto")
    there = {"cpu": 1, "cuda": torch.cuda.device_count()}
    if target.type not in there:
        raise UnnoiseError(f"{device} is not supported", "use cpu, cuda or auto")
    if target.type == "cuda" and not there["cuda"]:
        raise UnnoiseError("this torch sees no CUDA GPU", "use --device cpu, or install torch for your GPU")
    if (target.index or 0) >= there[target.type]:
        raise UnnoiseError(f"there is no {device} on this machine", "use cpu, cuda or auto")
    return target


def choose_dtype(dtype: torch.dtype | str, device: torch.device) -> torch.dtype:
    """The dtype of that name; "auto" is bfloat16 on a GPU and float32 elsewhere.

    Raises:
        UnnoiseError: another dtype or name, or float16 on a processor, which computes it ten times slower than float32.
    """
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if not isinstance(dtype, torch.dtype) or dtype not in names.values():
        names["auto"] = torch.bfloat16 if device.type == "cuda" else torch.float32
        dtype = names[checks.choice("dtype", str(dtype) if isinstance(dtype, torch.dtype) else dtype, *names)]
    if dtype == torch.float16 and device.type == "cpu":
        raise UnnoiseError("float16 is slow and unsafe on a processor", "use --dtype float32 or bfloat16")
    return dtype


def load_engine(
    model: PathLike[str] | str | None,
    device: torch.device | str = "auto",
    dtype: torch.dtype | str = "auto",
    threads: SupportsIndex | None = None,
    compiled: bool = False,
    choices: Choices = Choices(),
) -> Engine:
    """The engine of a model folder, of a finished training's folder, of a model of other tools, or (None) of our own.

    Args:
        model: the folder or file, or a name that ``weights.index`` knows.
        device, dtype: where and in which precision it computes.
        threads: processor threads; None leaves them as they are.
        compiled: compile the denoiser for this machine, by ``kernels.compiled``.
        choices: what a person says of the model.

    Raises:
        UnnoiseError: there is no whole model, or the device or dtype cannot be had, or there is no compiler.
    """
    threads = None if threads is None else checks.whole("threads", threads, 1, checks.THREADS)
    where, compiled = choose_device(device), checks.flag("compiled", compiled)
    precision = choose_dtype(dtype, where)
    folder = default_model() if model is None else named_model(model, choices.download)
    if threads is not None:
        torch.set_num_threads(threads)
    check_threads(where)
    whole = (load_foreign if is_foreign(folder) else load_own)(folder, where, precision, choices)
    if choices.decoder is not None:
        whole = with_decoder(whole, choices.decoder, choices.download)
    if compiled:
        compile_network(whole.denoiser.network)
    return Engine(whole)


def load_own(folder: Path, device: torch.device, dtype: torch.dtype, choices: Choices = Choices()) -> Model:
    """The model of a model folder, of which nothing can be said that it does not know.

    Raises:
        UnnoiseError: there is no whole model, or its parts do not fit.
    """
    parts, record = load_model(folder, drawing_parts(read_record(folder)), device, dtype)
    if replace(choices, download=False, decoder=None) != Choices():
        what = f"{folder} is a model of unnoise, which knows its parts"
        raise UnnoiseError(what, "name another with --model, or leave out --part, --family and --prediction")
    towers = [name for name in parts if is_tower(name)]
    tokenizers = {name: read_tokenizer(folder, record, parts[name], name) for name in towers}
    taught = read_vocabulary(read_file(folder, record, WORDS)) if WORDS in record["files"] else None
    whole = Model(parts, tokenizers, record, taught, layout_of(record))
    try:
        for name in towers:
            check_tower(parts[name], tokenizers[name])
        for denoiser in whole.denoisers.values() if len(towers) == 1 else ():
            check_fit(denoiser, whole.autoencoder, parts[towers[0]], tokenizers[towers[0]], whole.size[0])
    except (AttributeError, ValueError) as error:
        raise UnnoiseError(f"the parts of the model at {folder} do not fit ({error})", "it is damaged") from None
    return whole


def drawing_parts(record: Mapping[str, Any]) -> list[str]:
    """The parts of a model folder that draw: its autoencoder, its text towers and its calibrated networks."""
    more = [
        name
        for name, entry in record["parts"].items()
        if name not in PARTS and (is_tower(name) or "prediction" in entry)
    ]
    return [
        *(name for name in PARTS if name != "text" or name in record["parts"] or not any(map(is_tower, more))),
        *more,
    ]


def layout_of(record: Mapping[str, Any]) -> Layout | None:
    """How the vectors of several text towers are joined: the record's ``layout``, where it has one."""
    if "layout" not in record:
        return None
    layout: Layout = from_json(Layout, record["layout"], f"{MODEL}: layout")
    return layout


def read_tokenizer(folder: Path, record: Mapping[str, Any], text: nn.Module, part: str = "text") -> Tokenizer:
    """The tokenizer in a model folder, for its text tower, whose config says how long rows are and, where it has
    ``pad``, with which id they are filled up.

    Raises:
        UnnoiseError: there is none, or a damaged one.
    """
    data = read_file(folder, record, tokenizer_file(part)).decode("utf-8", "replace")
    return Tokenizer(data, int(getattr(text.config, "length", 0)), getattr(text.config, "pad", None))
