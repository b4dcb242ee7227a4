"""For tests of compiled networks: code of their own, and a count of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from unnoise.kernels.compiled import CACHE


@pytest.fixture(autouse=True)
def afresh(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is compiled yet, nothing is afterwards, and code is kept apart from that of whoever runs the tests."""
    monkeypatch.setenv(CACHE, str(tmp_path_factory.getbasetemp() / "compiled"))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled() -> int:
    """How many kinds of call have been compiled in this process; one of them is the line that tries the compiler."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
