"""The tiny picture set and encoders of the training tests."""

from __future__ import annotations

from training.conftest import world

__all__ = ["world"]
