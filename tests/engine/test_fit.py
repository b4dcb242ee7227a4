"""Parts of different models are refused by their configs, before any network is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import tiny
from unnoise.encoders.pair import Pair
from unnoise.engine.fit import check_fit
from unnoise.engine.load import load_engine

SIZE = 128
# part, setting, another value, what is said of it
MISFITS: list[tuple[str, str, Any, str]] = [
    ("denoiser", "channels_in", 8, "the autoencoder's channels, 4, is not the denoiser's channels, 8"),
    ("denoiser", "size", 32, "the cells of 128 pixels along one axis, 16, is not the denoiser's size, 32"),
    ("denoiser", "text_width", 64, "the text tower's width, 32, is not the denoiser's text_width, 64"),
    ("text", "width", 64, "the text tower's width, 64, is not the denoiser's text_width, 32"),
    ("text", "vocabulary", 10, "ids, the text tower 10"),
    ("text", "end", 0, "the last id of the tokenizer, 1, is not the text tower's, 0"),
]


def check(parts: dict[str, nn.Module], size: int = SIZE) -> None:
    check_fit(parts["denoiser"], parts["autoencoder"], parts["text"], tiny.tokenizer(), size)


def change(parts: dict[str, nn.Module], part: str, **settings: Any) -> None:
    module: Any = getattr(parts[part], "network", parts[part])
    module.config = replace(module.config, **settings)


@pytest.mark.parametrize(("part", "setting", "value", "message"), MISFITS)
def test_parts_that_do_not_fit_are_named(part: str, setting: str, value: Any, message: str) -> None:
    parts = tiny.components()
    check(parts)
    change(parts, part, **{setting: value})
    with pytest.raises(ValueError, match=message):
        check(parts)


def test_a_network_without_a_prompt_fits_any_text_tower() -> None:
    parts = tiny.components()
    change(parts, "denoiser", text_width=0)
    change(parts, "text", width=99)
    check(parts)


def test_what_is_no_such_part_is_refused() -> None:
    parts = tiny.components()
    for part, message in (
        ("denoiser", "no path"),
        ("autoencoder", "no autoencoder"),
        ("text", "pair is no text tower"),
    ):
        with pytest.raises(ValueError, match=message):
            check({**parts, part: Pair()})
    with pytest.raises(ValueError, match="no multiple of 8"):
        check(parts, 100)


def test_loading_asks_no_network(tiny_model: Path) -> None:
    calls: list[str] = []
    hook = register_module_forward_hook(lambda module, args, output: calls.append(type(module).__name__))
    try:
        engine = load_engine(tiny_model, "cpu")
        assert calls == []
        engine.model.encode(["red"])
        assert calls, "the hook hears"
    finally:
        hook.remove()
