"""The Python of the pages runs as it stands, here on the tiny model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
PNGS = [1, 0, 3, 1, 1, 20, 0, 0, 2, 1, 0, 0, 1, 0]  # files that each block of docs/python.md writes


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), flags=re.M | re.S)


def test_the_pages_have_python() -> None:
    assert len(blocks("docs/python.md")) == len(PNGS)
    assert blocks("README.md")


@pytest.mark.parametrize("number", range(len(PNGS)))
def test_python_runs(number: int, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unnoise.engine.load.default_model", lambda: tiny_model)
    monkeypatch.setenv("UNNOISE_HOME", str(tmp_path / "home"))
    exec(compile(blocks("docs/python.md")[number], "python.md", "exec"), {})
    assert not torch.is_inference_mode_enabled()
    assert len(list(tmp_path.glob("*.png"))) == PNGS[number]
