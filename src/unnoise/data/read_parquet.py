"""Reads pictures and captions from Parquet files, as the ``datasets`` library, img2dataset and this one write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise import extras
from unnoise.data.fields import RANK, as_captions, choice_note, choose, plain
from unnoise.data.intake import (
    MAX_PICTURE,
    Item,
    LeftOut,
    Quarantine,
    Source,
    captions_of,
    check_not_instead,
    check_picture,
    text_of,
)
from unnoise.foreign import head_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PICTURES = ("image", "picture", "img", "photo", "jpg", "jpeg", "png", "webp", "images")  # the first that is there
MAX_GROUP = 2 * 2**30  # bytes of one row group, unpacked, as its footer has them
ROWS = 8  # decoded at a time


def read_parquet(path: Path, name: str, aside: Quarantine) -> Source:
    """The rows of a Parquet file.

    Pictures come from a column of bytes, or of records with ``bytes``; a row with only a path or an address is left
    out: nothing is fetched. Captions are a text or a list of texts, from the column that ``fields.choose`` finds; in a
    column with the name of captions also bytes in UTF-8. Rows are named ``file.parquet#17``, from 0.
    """
    try:
        schema, count = look(path)
        pictures, choice = pictures_in(schema), choose(texts_of(schema))
    except LeftOut as why:
        aside.add(name, why)
        return Source(0, iter(()))
    picture, *more = pictures
    if more:
        aside.note(name, f"pictures are those of the column {picture}, not of {', '.join(more)}")
    line = choice_note(choice)
    if line:
        columns = "" if choice.name else f" (its columns are {', '.join(schema.names)[:300]})"
        aside.note(name, line + columns)

    def items() -> Iterator[Item]:
        caption = choice.name
        columns = [picture, *([caption] if caption else [])]
        for row, (cell, value) in enumerate(scalars(path, name, columns, count, aside)):
            try:
                yield Item(f"{name}#{row}", bytes_of(cell.as_py()), captions_in_cell(caption, value) if caption else ())
            except LeftOut as why:
                aside.add(f"{name}#{row}", why)

    return Source(count, items())


def look(path: Path) -> tuple[pa.Schema, int]:
    """(schema, number of rows) of a file whose row groups have sizes to be read.

    Raises:
        LeftOut: it is no whole Parquet file, or a group is too large.
    """
    try:
        with open_parquet(path) as file:
            check_groups(file.metadata)
            return file.schema_arrow, file.metadata.num_rows
    except damages() as error:
        raise LeftOut("damaged", f"no whole Parquet file: {error}") from None


def scalars(
    path: Path, name: str, columns: Sequence[str], count: int, aside: Quarantine
) -> Iterator[tuple[pa.Scalar, pa.Scalar | None]]:
    """The values of one or two columns, row by row; they end where the file is damaged, which is recorded."""
    row = 0
    try:
        with open_parquet(path) as file:
            for batch in file.iter_batches(batch_size=ROWS, columns=[*columns], use_threads=False):
                first, *second = (batch.column(each) for each in columns)
                for pair in zip(first, *second or [[None] * len(batch)], strict=True):
                    yield pair
                    row += 1
    except damages() as error:
        aside.add(name, LeftOut("damaged", f"{count - row:,} rows from row {row} on cannot be read: {error}"))


def damages() -> tuple[type[Exception], ...]:
    """The exceptions that pyarrow raises for a damaged file."""
    pa = extras.load("pyarrow")
    return (pa.ArrowException, OSError, ValueError)


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file with its footer read; its pages are checked against their checksums, if it has them.

    Raises:
        LeftOut: it is a pointer or a page in its place.
    """
    pq = extras.load("pyarrow.parquet")
    check_not_instead(head_of(path))
    limits = {"thrift_string_size_limit": MAX_PICTURE, "thrift_container_size_limit": 2**20}
    return pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True, **limits)


def within(kind: pa.DataType) -> pa.DataType:
    """The type of the values in a list or a dictionary; any other type itself."""
    kinds = extras.load("pyarrow.types")
    if kinds.is_dictionary(kind):
        return within(kind.value_type)
    lists = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list, kinds.is_list_view, kinds.is_large_list_view)
    return within(kind.value_type) if any(each(kind) for each in lists) else kind


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, or records with ``bytes``."""
    kinds, kind = extras.load("pyarrow.types"), within(kind)
    if kinds.is_struct(kind):
        return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind))


def holds_text(kind: pa.DataType) -> bool:
    """Whether a column holds text."""
    kinds, kind = extras.load("pyarrow.types"), within(kind)
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def single(schema: pa.Schema) -> list[str]:
    """The column names that occur only once."""
    return [name for name in schema.names if schema.names.count(name) == 1]


def texts_of(schema: pa.Schema) -> list[str]:
    """The columns that hold text, and columns of bytes with the name of captions."""
    kinds = extras.load("pyarrow.types")

    def holds(name: str) -> bool:
        kind = schema.field(name).type
        return holds_text(kind) or (plain(name) in RANK and holds_bytes(kind) and not kinds.is_struct(within(kind)))

    return [name for name in single(schema) if holds(name)]


def pictures_in(schema: pa.Schema) -> list[str]:
    """The columns with pictures, the best first: in the order of ``PICTURES``, then others without a caption's name.

    Raises:
        LeftOut: there is none.
    """
    kinds = extras.load("pyarrow.types")
    full = [name for name in single(schema) if holds_bytes(schema.field(name).type) and plain(name) not in RANK]
    first = sorted((name for name in full if plain(name) in PICTURES), key=lambda name: PICTURES.index(plain(name)))
    if full:
        return [*first, *(name for name in full if name not in first)]
    others = [name for name in single(schema) if holds_text(kind := schema.field(name).type) or kinds.is_struct(kind)]
    paths = [name for name in others if plain(name) in PICTURES or "url" in plain(name) or plain(name) == "filename"]
    if paths:
        what = f"its column {paths[0]} has addresses or paths, the pictures are not in the file"
        raise LeftOut("no pictures", f"{what}, and nothing is fetched; fetch them first, as img2dataset does")
    raise LeftOut("no pictures", f"a table without a column of pictures, called {', '.join(PICTURES)}")


def check_groups(metadata: pq.FileMetaData) -> None:
    """Ensures that no row group would unpack to more than ``MAX_GROUP``.

    It uses the groups' own totals: asking pyarrow for a column's metadata crashes the process if its statistics are
    damaged.

    Raises:
        LeftOut: a group would.
    """
    for number in range(metadata.num_row_groups):
        size = metadata.row_group(number).total_byte_size
        if size > MAX_GROUP:
            detail = f"row group {number} unpacks to {size:,} bytes, at most {MAX_GROUP:,} are read"
            raise LeftOut("too large", f"{detail}; write it with smaller row groups")


def bytes_of(value: Any) -> bytes:
    """The bytes of a picture's file in a cell.

    Raises:
        LeftOut: the cell holds none, several, or too many bytes.
    """
    if isinstance(value, list) and len(value) > 1:
        raise LeftOut("several pictures", f"the row holds {len(value)}")
    if isinstance(value, list):
        value = value[0] if value else None
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes) or not data:
        raise LeftOut("not a picture", "the row holds no bytes; a path or an address is not followed")
    return check_picture(data)


def captions_in_cell(column: str, scalar: pa.Scalar | None) -> tuple[str, ...]:
    """The captions in a cell; none if it is null, an empty list, or [""], which our own sets write for no caption.

    Raises:
        LeftOut: they are no texts, or empty.
    """
    try:
        value = None if scalar is None else scalar.as_py()
    except (LookupError, UnicodeDecodeError):
        raise LeftOut("bad caption", "it is not UTF-8") from None
    texts = [text_of(text) if isinstance(text, bytes) else text for text in as_captions(column, value)]
    if value == [""]:
        return ()
    return captions_of(texts) if any(text is not None for text in texts) else ()
