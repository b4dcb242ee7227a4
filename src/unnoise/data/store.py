"""Opens a picture set: pictures in memory, captions, attributes, and which pictures train what."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from unnoise import extras
from unnoise.data.intake import LeftOut
from unnoise.data.square import decoded
from unnoise.data.write import FORMAT, MANIFEST, PARTS, PICTURES, TIERS, content_hashes
from unnoise.errors import UnnoiseError
from unnoise.files import expanded, sha256

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

T = TypeVar("T")


def open_set(path: Path | str) -> PictureSet:
    """Open the picture set in a folder and check it against its manifest.

    Raises:
        UnnoiseError: the folder holds no picture set, a newer one, or a damaged one.
    """
    pq, path = extras.load("pyarrow.parquet"), expanded(path)
    if not (path / MANIFEST).is_file() or not (path / PICTURES).is_file():
        raise UnnoiseError(
            f"no picture set at {path}",
            "build one with `unnoise data emoji` or `unnoise data folder`, or name its folder",
        )
    damaged = UnnoiseError(f"the picture set at {path} is damaged", "remove the folder and build the set again")
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        version, expected = int(manifest["format"]), str(manifest["parquet_sha256"])
        count, content, pictures = manifest["pictures"], manifest["sha256"], manifest["pictures_sha256"]
    except (KeyError, OSError, OverflowError, RecursionError, TypeError, ValueError):
        raise damaged from None
    if version > FORMAT:
        raise UnnoiseError(f"the picture set at {path} has format {version}, this is for {FORMAT}", "update unnoise")
    if sha256(path / PICTURES) != expected:
        raise damaged
    try:
        table = pq.read_table(path / PICTURES)
        if (len(table), content_hashes(table)) != (count, {"sha256": content, "pictures_sha256": pictures}):
            raise damaged
        return PictureSet(path, manifest, table)
    except (AttributeError, LookupError, NotImplementedError, OSError, TypeError, ValueError):
        raise damaged from None  # its hash is right, but it is another table or none


class PictureSet:
    """Captioned pictures, all of one size; made by ``open_set``.

    ``ids`` code points or other names; ``captions`` the canonical one first, [""] where there is none; ``attributes``
    dictionaries of the same keys; ``family`` tone family or group of near duplicates of each, for sampling with
    p ~ 1 / sqrt(its size); ``identical`` index of the first picture with the same pixels; ``tier`` and ``part`` of the
    held-out set; ``repeats`` how often each is trained for each time that others are trained once; ``sha256`` (hex) of
    pixels, captions, attributes and split; ``pictures_sha256`` only of ids and pixels; ``manifest`` the whole manifest.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], table: pa.Table) -> None:
        columns = {name: table.column(name).to_pylist() for name in table.column_names if name != "image"}
        self.path, self.manifest = path, manifest
        self.ids: list[str] = columns["id"]
        self.captions: list[list[str]] = columns["captions"]
        self.attributes: list[dict[str, Any]] = columns.get("attributes", [{} for _ in table["id"]])
        self.family: list[str] = columns["family"]
        self.identical: list[int] = columns["identical"]
        self.tier: list[str] = columns["tier"]
        self.part: list[str] = columns["part"]
        self.repeats: list[int] = columns.get("repeats", [1] * len(table))
        self.sha256: str = manifest["sha256"]
        self.pictures_sha256: str = manifest["pictures_sha256"]
        self._encoded = table.column("image").combine_chunks().field("bytes")

    def __len__(self) -> int:
        return len(self.ids)

    def pictures(self, indices: Sequence[int] | torch.Tensor | None = None) -> torch.Tensor:
        """RGB pictures, uint8 (n, 3, height, width), in [0, 255]; all of them, or those of the indices.

        Decoded once and kept in memory; without indices this is the kept tensor itself, which callers must not change.
        """
        if indices is None:
            return self._pictures
        return self._pictures[torch.as_tensor(indices, dtype=torch.long)]

    @cached_property
    def side(self) -> int:
        """Height in pixels of the pictures, from the header of the first; 0 of an empty set."""
        return self._decoded(0, lambda picture: picture.height) if len(self) else 0

    def select(self, trained_by: Literal["autoencoder", "denoiser"]) -> list[int]:
        """Indices of the pictures that train the autoencoder, or the denoiser (and with it the text tower)."""
        tiers = {"autoencoder": {"train"}, "denoiser": {"train", "autoencoder"}}
        if trained_by not in tiers:
            raise ValueError(f"trained_by is {trained_by!r}, not one of {', '.join(tiers)}")
        return [i for i, tier in enumerate(self.tier) if tier in tiers[trained_by]]

    def held_out(self, tier: str, part: str) -> list[int]:
        """Indices of a held-out tier (tier1, tier2, autoencoder) and part (validation to choose by, test to report)."""
        if tier not in TIERS[1:] or part not in PARTS[1:]:
            raise ValueError(f"no held-out set {tier!r}, {part!r}")
        return [i for i, is_in in enumerate(zip(self.tier, self.part, strict=True)) if is_in == (tier, part)]

    def _decoded(self, index: int, use: Callable[[Image.Image], T]) -> T:
        """What ``use`` makes of a picture, opened and checked, but not decoded yet."""
        try:
            return decoded(self._encoded[index].as_py(), use)
        except LeftOut as why:
            raise UnnoiseError(
                f"picture {self.ids[index]!r} of the set at {self.path} is {why}", "build the set again"
            ) from None

    @cached_property
    def _pictures(self) -> torch.Tensor:
        import numpy as np

        out: torch.Tensor | None = None
        for index in range(len(self)):

            def read(picture: Image.Image, like: torch.Tensor | None = out) -> torch.Tensor:
                if like is not None and (picture.height, picture.width) != like.shape[2:]:
                    raise LeftOut("of another size", "pictures of a set have one")
                return torch.from_numpy(np.array(picture.convert("RGB")))

            pixels = self._decoded(index, read).permute(2, 0, 1)
            out = torch.empty(len(self), *pixels.shape, dtype=torch.uint8) if out is None else out
            out[index] = pixels
        return torch.empty(0, 3, 0, 0, dtype=torch.uint8) if out is None else out
