"""A mutational fuzzer for the readers of people's own pictures, and the seeds that it starts from.

``python -m data.folder_fuzz SECONDS`` in the folder ``tests`` tries each reader for so long in turn and prints how many
inputs it took. What a reader may do with any input: yield items, put aside, or raise ``UnnoiseError``. Nothing else.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from unnoise.data.folder import source_of
from unnoise.data.intake import Item, LeftOut, Quarantine, Source, captions_in
from unnoise.data.read_folder import read_folder
from unnoise.data.read_kohya import read_kohya
from unnoise.data.read_parquet import read_parquet
from unnoise.data.read_tar import read_tar
from unnoise.data.square import Squarer
from unnoise.errors import UnnoiseError
from unnoise.text import clean

Try = Callable[[bytes, Path], None]


def picture(
    kind: str = "PNG", size: tuple[int, int] = (24, 16), colour: str = "red", mode: str = "RGB", **save
) -> bytes:
    """A picture's file."""
    out = io.BytesIO()
    Image.new(mode, size, colour if mode in ("RGB", "RGBA", "P") else 0).save(out, kind, **save)
    return out.getvalue()


def tar(members: dict[str, bytes]) -> bytes:
    """A plain tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def parquet(columns: dict[str, object], **write) -> bytes:
    """A Parquet file."""
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **write)
    return out.getvalue()


def drained(source: Source) -> list[Item]:
    """All items of a source, each checked to be what an item is."""
    items = list(source.items)
    for item in items:
        assert item.data
        assert all(clean(caption) == caption and caption for caption in item.captions)
    return items


def read(path: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """(captions by name, why by name of what was left out) of whatever lies at a path."""
    aside = Quarantine()
    items = drained(source_of(path, aside)[0])
    return {item.name: item.captions for item in items}, {
        e["name"]: f"{e['kind']}: {e['detail']}" for e in aside.entries
    }


def fill(root: Path, files: dict[str, bytes | str]) -> Path:
    """Writes files below a folder; returns the folder."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def try_picture(data: bytes, _: Path) -> None:
    with contextlib.suppress(LeftOut):
        assert Squarer(16)(data).picture.size == (16, 16)


def try_captions(data: bytes, _: Path) -> None:
    with contextlib.suppress(LeftOut):
        assert captions_in(data)


def try_metadata(data: bytes, folder: Path) -> None:
    (folder / "a.png").write_bytes(PNG)
    (folder / "metadata.jsonl").write_bytes(data)
    drained(read_folder(folder, Quarantine()))


def try_table(data: bytes, folder: Path) -> None:
    (folder / "a.png").write_bytes(PNG)
    (folder / "metadata.csv").write_bytes(data)
    drained(read_folder(folder, Quarantine()))
    (folder / "metadata.csv").unlink()


def try_json(data: bytes, folder: Path) -> None:
    (folder / "a.png").write_bytes(PNG)
    for name in ("a.json", "meta.json"):
        (folder / name).write_bytes(data)
        drained(read_folder(folder, Quarantine()))
        (folder / name).unlink()


def try_toml(data: bytes, folder: Path) -> None:
    (folder / "a.png").write_bytes(PNG)
    (folder / "d.toml").write_bytes(data)
    drained(read_kohya(folder / "d.toml", Quarantine()).source)


def try_kohya_metadata(data: bytes, folder: Path) -> None:
    (folder / "m.json").write_bytes(data)
    try_toml(b"[[datasets]]\n[[datasets.subsets]]\nimage_dir='.'\nmetadata_file='m.json'\nenable_wildcard=true", folder)


def try_parquet(data: bytes, folder: Path) -> None:
    (folder / "a.parquet").write_bytes(data)
    drained(read_parquet(folder / "a.parquet", "a", Quarantine()))


def try_tar(data: bytes, folder: Path) -> None:
    (folder / "a.tar").write_bytes(data)
    drained(read_tar(folder / "a.tar", "a", Quarantine()))


PNG = picture()
TOML = b"""[general]
enable_wildcard = true
[[datasets]]
resolution = [64, 64]
[[datasets.subsets]]
image_dir = '.'
caption_extension = '.txt'
class_tokens = 'a {red|blue} dog'
num_repeats = 3
"""
TARGETS: dict[str, tuple[Try, list[bytes]]] = {
    "pictures": (
        try_picture,
        [PNG, picture("JPEG", progressive=True), picture("WEBP"), picture("WEBP", lossless=True), picture(mode="I;16")]
        + [picture(mode="P"), picture(mode="LA")]
        + [picture("WEBP", mode="RGBA", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")],
    ),
    "caption files": (try_captions, ["a red apple\nein grüner Apfel\n".encode(), "\ufeffa\u2028b".encode(), b""]),
    "metadata.jsonl": (
        try_metadata,
        [b'{"file_name": "a.png", "text": "red"}\n{"file_name": "b", "text": ["a", "b"]}'],
    ),
    "metadata.csv": (
        try_table,
        [b'file_name,text\na.png,"red, blue"\nb.png,x\n', "file_name;text\na.png;x".encode("utf-16")],
    ),
    "JSON": (
        try_json,
        [b'{"a.png": {"caption": "red", "tags": "x"}}', b'{"caption": ["red"], "tags": ["x"]}', b'["red"]'],
    ),
    "dataset TOML": (try_toml, [TOML]),
    "kohya metadata": (try_kohya_metadata, [b'{"a.png": {"caption": "a {red|blue} dog\\nb", "tags": "c, d"}}']),
    "Parquet": (
        try_parquet,
        [
            parquet({"image": [{"bytes": PNG, "path": "a"}] * 3, "text": ["a", None, "b"]}),
            parquet({"png": pa.array([PNG] * 2, pa.binary_view()), "text": pa.array(["a", None]).dictionary_encode()}),
            parquet({"png": [PNG] * 3, "txt": pa.array(["a", None, "b"], pa.string_view()), "b": [b"x"] * 3}),
            parquet({"jpg": [PNG] * 20, "captions": [["a", "b"]] * 20}, compression="zstd", write_page_checksum=True),
        ],
    ),
    "WebDataset tars": (
        try_tar,
        [tar({"a.png": PNG, "a.txt": b"red", "b.jpg": PNG, "b.json": json.dumps({"caption": "blue"}).encode()})]
        + [tar({"a.b.png": PNG, "c.png": PNG, "a.b.txt": b"red", "c.caption.txt": b"blue", "c.x.png": PNG})],
    ),
}  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The input with a few bytes flipped, cut, doubled, replaced by telling numbers, or by noise."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at, span = rng.randrange(len(out) + 1), rng.choice((1, 2, 4, 8, 64))
        match rng.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + span]
            case 2:
                out[at:at] = out[rng.randrange(len(out) + 1) :][:span]
            case 3:
                out[at : at + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80"))
            case 4:
                out[at : at + span] = rng.randbytes(span)
            case 5 if rng.random() < 0.2:
                del out[at:]
    return bytes(out)


def fuzz(name: str, seconds: float = float("inf"), count: int = sys.maxsize, seed: int = 0) -> int:
    """Tries a reader with mutated seeds until the time or the count is over; returns how many inputs it took.

    Raises:
        AssertionError: an input made it do what it may not; the input is in the message.
    """
    attempt, seeds = TARGETS[name]
    rng, done, end = random.Random(f"{name} {seed}"), 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        while done < count and time.monotonic() < end:
            data = mutated(rng.choice(seeds), rng)
            try:
                with contextlib.suppress(UnnoiseError):
                    attempt(data, folder)
            except Exception as error:
                raise AssertionError(f"{name}: {error!r} for {data!r}") from error
            done += 1
    return done


if __name__ == "__main__":
    for each in TARGETS:
        print(f"{each}: {fuzz(each, float(sys.argv[1]), seed=int((sys.argv + ['1'])[2])):,}", flush=True)
