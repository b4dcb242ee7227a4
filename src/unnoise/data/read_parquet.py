"""Reads pictures and captions from Parquet files, as the ``datasets`` library and this one write them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.data.intake import MAX_PICTURE, Item, LeftOut, Quarantine, Source, captions_of, check_picture

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PICTURES = ("image", "picture", "img", "jpg", "png", "webp")  # names of the column, the first that is there
CAPTIONS = ("captions", "caption", "text", "prompt")
MAX_GROUP = 2 * 2**30  # bytes of one row group, unpacked, as its footer has them
ROWS = 8  # decoded at a time


def read_parquet(path: Path, name: str, aside: Quarantine) -> Source:
    """The rows of a Parquet file.

    A picture is a binary column, or a record with ``bytes``; a row that holds a path or an address alone is put aside:
    nothing is fetched. Captions are a text or a list of texts. Rows are named ``file.parquet#17``, from 0.
    """
    import pyarrow as pa

    damaged = (pa.ArrowException, OSError, ValueError)
    try:
        with open_parquet(path) as file:
            picture, caption = columns(file.schema_arrow)
            check_groups(file.metadata)
            count = file.metadata.num_rows
    except damaged as error:
        aside.add(name, LeftOut("damaged", f"no whole Parquet file: {error}"))
        return Source(0, iter(()))
    except LeftOut as why:
        aside.add(name, why)
        return Source(0, iter(()))

    def items() -> Iterator[Item]:
        row = 0
        try:
            with open_parquet(path) as file:
                wanted = [picture, *([caption] if caption else [])]
                for batch in file.iter_batches(batch_size=ROWS, columns=wanted, use_threads=False):
                    told = batch.column(caption) if caption else [None] * len(batch)
                    for shown, said in zip(batch.column(picture), told, strict=True):
                        try:
                            yield Item(f"{name}#{row}", bytes_of(shown.as_py()), said_of(said))
                        except LeftOut as why:
                            aside.add(f"{name}#{row}", why)
                        row += 1
        except damaged as error:
            aside.add(name, LeftOut("damaged", f"{count - row:,} rows from row {row} on cannot be read: {error}"))

    return Source(count, items())


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file, its footer read and its pages to be checked against their sums where it has them."""
    import pyarrow.parquet as pq

    limits = {"thrift_string_size_limit": MAX_PICTURE, "thrift_container_size_limit": 2**20}
    return pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True, **limits)


def columns(schema: pa.Schema) -> tuple[str, str | None]:
    """Names of the columns with pictures and with captions.

    Raises:
        LeftOut: there is none with pictures.
    """
    import pyarrow.types as kinds

    def holds_bytes(kind: pa.DataType) -> bool:
        if kinds.is_struct(kind):
            return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
        return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))

    def holds_text(kind: pa.DataType) -> bool:
        if kinds.is_list(kind) or kinds.is_large_list(kind):
            return holds_text(kind.value_type)
        return bool(kinds.is_string(kind) or kinds.is_large_string(kind))

    names = [name for name in schema.names if schema.names.count(name) == 1]
    picture = next((name for name in PICTURES if name in names and holds_bytes(schema.field(name).type)), None)
    if picture is None:
        raise LeftOut("not a picture", f"a table without pictures in a column called {', '.join(PICTURES)}")
    return picture, next((name for name in CAPTIONS if name in names and holds_text(schema.field(name).type)), None)


def check_groups(metadata: pq.FileMetaData) -> None:
    """Sees that no row group would unpack to more than ``MAX_GROUP``.

    By the groups' own totals: to ask pyarrow for a column's record ends the process if its statistics are damaged.

    Raises:
        LeftOut: one would.
    """
    for number in range(metadata.num_row_groups):
        size = metadata.row_group(number).total_byte_size
        if size > MAX_GROUP:
            detail = f"row group {number} unpacks to {size:,} bytes, at most {MAX_GROUP:,} are read"
            raise LeftOut("too large", f"{detail}; write it with smaller row groups")


def bytes_of(shown: Any) -> bytes:
    """A picture's file of what a row holds.

    Raises:
        LeftOut: it holds none, or more than a picture has.
    """
    data = shown.get("bytes") if isinstance(shown, dict) else shown
    if not isinstance(data, bytes) or not data:
        raise LeftOut("not a picture", "the row holds no bytes; a path or an address is not followed")
    return check_picture(data)


def said_of(said: pa.Scalar | None) -> tuple[str, ...]:
    """The captions of what a row holds; none where that is null, an empty list, or [""], as our own sets have it.

    Raises:
        LeftOut: they are no texts, or empty.
    """
    try:
        value = None if said is None else said.as_py()
    except UnicodeDecodeError:
        raise LeftOut("bad caption", "it is not UTF-8") from None
    texts = value if isinstance(value, list) else [value]
    if value == [""]:
        return ()
    return captions_of(texts) if any(text is not None for text in texts) else ()
