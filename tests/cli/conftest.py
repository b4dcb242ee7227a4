"""What verbs that judge are tested with: a set of coloured shapes, and the folder of a judge that was never trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.judged import save_judge, write_shapes
from unnoise.data.store import open_set
from unnoise.encoders.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("sets") / "shapes")


@pytest.fixture(scope="module")
def eyes(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    captions = [captions[0] for captions in open_set(shapes).captions]
    return save_judge(tmp_path_factory.mktemp("judges") / "eyes", Tokenizer.train(captions, 280, 16))
