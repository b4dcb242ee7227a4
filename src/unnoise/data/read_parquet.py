"""Reads pictures and captions from Parquet files, as the ``datasets`` library, img2dataset and this one write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise import extras
from unnoise.data.fields import RANK, choose, listed, plain, told_of
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

    A picture is a column of bytes, or of records with ``bytes``; a row that holds a path or an address alone is put
    aside: nothing is fetched. Captions are a text or a list of texts, from the column that ``fields.choose`` finds, by
    name also bytes in UTF-8. Rows are named ``file.parquet#17``, from 0.
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
    line = told_of(choice)
    if line:
        seen = "" if choice.name else f" (its columns are {', '.join(schema.names)[:300]})"
        aside.note(name, line + seen)

    def items() -> Iterator[Item]:
        caption = choice.name
        wanted = [picture, *([caption] if caption else [])]
        for row, (shown, said) in enumerate(scalars(path, name, wanted, count, aside)):
            try:
                yield Item(f"{name}#{row}", bytes_of(shown.as_py()), said_of(caption, said) if caption else ())
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
    """The values of one column or two, row by row; what is damaged ends them, and is put aside."""
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
    """What pyarrow raises of a damaged file."""
    pa = extras.load("pyarrow")
    return (pa.ArrowException, OSError, ValueError)


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file, its footer read and its pages to be checked against their sums where it has them.

    Raises:
        LeftOut: it is a pointer or a page in its place.
    """
    pq = extras.load("pyarrow.parquet")
    check_not_instead(head_of(path))
    limits = {"thrift_string_size_limit": MAX_PICTURE, "thrift_container_size_limit": 2**20}
    return pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True, **limits)


def within(kind: pa.DataType) -> pa.DataType:
    """The type of what a list or a dictionary holds, of any other the type itself."""
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
    """The names of columns that stand for one column each."""
    return [name for name in schema.names if schema.names.count(name) == 1]


def texts_of(schema: pa.Schema) -> list[str]:
    """The columns that hold text; of bytes, those whose name is one of captions."""
    kinds = extras.load("pyarrow.types")

    def holds(name: str) -> bool:
        kind = schema.field(name).type
        return holds_text(kind) or (plain(name) in RANK and holds_bytes(kind) and not kinds.is_struct(within(kind)))

    return [name for name in single(schema) if holds(name)]


def pictures_in(schema: pa.Schema) -> list[str]:
    """The columns with pictures, the one to read first: by ``PICTURES``, else as they come, if not called a text.

    Raises:
        LeftOut: there is none.
    """
    kinds = extras.load("pyarrow.types")
    full = [name for name in single(schema) if holds_bytes(schema.field(name).type) and plain(name) not in RANK]
    known = sorted((name for name in full if plain(name) in PICTURES), key=lambda name: PICTURES.index(plain(name)))
    if full:
        return [*known, *(name for name in full if name not in known)]
    there = [name for name in single(schema) if holds_text(kind := schema.field(name).type) or kinds.is_struct(kind)]
    paths = [name for name in there if plain(name) in PICTURES or "url" in plain(name) or plain(name) == "filename"]
    if paths:
        what = f"its column {paths[0]} has addresses or paths, the pictures are not in the file"
        raise LeftOut("no pictures", f"{what}, and nothing is fetched; fetch them first, as img2dataset does")
    raise LeftOut("no pictures", f"a table without a column of pictures, called {', '.join(PICTURES)}")


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
        LeftOut: it holds none, several, or more than a picture has.
    """
    if isinstance(shown, list) and len(shown) > 1:
        raise LeftOut("several pictures", f"the row holds {len(shown)}")
    if isinstance(shown, list):
        shown = shown[0] if shown else None
    data = shown.get("bytes") if isinstance(shown, dict) else shown
    if not isinstance(data, bytes) or not data:
        raise LeftOut("not a picture", "the row holds no bytes; a path or an address is not followed")
    return check_picture(data)


def said_of(column: str, said: pa.Scalar | None) -> tuple[str, ...]:
    """The captions of what a row holds; none where that is null, an empty list, or [""], as our own sets have it.

    Raises:
        LeftOut: they are no texts, or empty.
    """
    try:
        value = None if said is None else said.as_py()
    except (LookupError, UnicodeDecodeError):
        raise LeftOut("bad caption", "it is not UTF-8") from None
    texts = [text_of(text) if isinstance(text, bytes) else text for text in listed(column, value)]
    if value == [""]:
        return ()
    return captions_of(texts) if any(text is not None for text in texts) else ()
