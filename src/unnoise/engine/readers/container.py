"""The texts in a picture file, uninterpreted: text chunks, Exif, and bits hidden in its pixels.

A PNG's texts are read here and not by Pillow, which refuses a picture with a text of more than a megabyte. Here each
text has its own limit, and no pixels are unpacked. Pillow reads Exif.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
import zlib
from collections.abc import Iterator

from PIL import ExifTags, Image

from unnoise.data.lean import PNG_MAGIC, TEXTS, chunks, lean
from unnoise.engine.readers.reading import MAX_TEXT, json_object

MAX_ALL = 4 * MAX_TEXT
MAX_HIDDEN = 2**24  # pixels of a picture that is searched for hidden bits
CODES = (b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b"\0" * 8)  # of Exif comments, beside b"UNICODE\0"
EXIF_TEXTS = (ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software)


def texts_of(data: bytes) -> dict[str, str]:
    """{keyword: text} of a picture's file; of Exif, ``parameters``, ``prompt``, ``workflow`` or the tag's name.

    Raises:
        ValueError: the file is no PNG, JPEG or WebP.
    """
    pairs = _chunk_texts(data) if data.startswith(PNG_MAGIC) else _exif(_open_exif(data))
    texts: dict[str, str] = {}
    room = MAX_ALL
    for key, text in pairs:
        room -= len(text)
        if room < 0:
            break
        texts.setdefault(key, text)
    return texts or dict(_hidden(data))


def _chunk_texts(data: bytes) -> Iterator[tuple[str, str]]:
    """The texts of a PNG, before and after its pixels, as far as the file goes."""
    room = MAX_ALL
    for chunk in chunks(memoryview(data)):
        if len(chunk.whole) > MAX_TEXT or room < 0:
            continue
        if chunk.kind == b"eXIf":
            exif = Image.Exif()
            try:
                with _quiet():
                    exif.load(chunk.body)
            except Exception:  # Pillow's parser on untrusted bytes
                continue
            yield from _exif(exif)
        elif chunk.kind in TEXTS:
            text = _text_chunk(chunk.kind, chunk.body)
            room -= len(text[1]) if text else MAX_TEXT  # a text that is too long costs as much as was unpacked
            if text:
                yield text


def _text_chunk(kind: bytes, data: bytes) -> tuple[str, str] | None:
    """(keyword, text); None if it is damaged or too long."""
    name, _, rest = data.partition(b"\0")
    key = name[:80].decode("latin-1")
    try:
        if kind == b"tEXt":
            return key, decode(rest)
        if kind == b"zTXt":
            return key, decode(inflate(rest[1:]))
        packed, rest = rest[:1] == b"\1", rest[2:]
        rest = rest.split(b"\0", 2)[2]  # after the language and the translated keyword
        return key, decode(inflate(rest) if packed else rest)
    except (IndexError, ValueError):
        return None


def decode(data: bytes) -> str:
    """Text of a chunk: UTF-8 if it is valid, since tools write it into Latin-1 chunks too."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def inflate(data: bytes, bits: int = 15) -> bytes:
    """Unpacked bytes, ``MAX_TEXT`` at most.

    Raises:
        ValueError: there are more, or they are damaged.
    """
    try:
        unpack = zlib.decompressobj(bits)
        out = unpack.decompress(data, MAX_TEXT)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if unpack.unconsumed_tail or not unpack.eof:
        raise ValueError("the text is too long or cut off")
    return out


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses Pillow's warnings about odd Exif, which the reader judges itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open_exif(data: bytes) -> Image.Exif:
    """The Exif of a JPEG or WebP file.

    Raises:
        ValueError: it is no such file.
    """
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=["JPEG", "WEBP"]) as image:
            return image.getexif()
    except Exception as error:  # Pillow's parsers on untrusted bytes
        raise ValueError("it is no PNG, JPEG or WebP picture") from error


def _exif(exif: Image.Exif) -> Iterator[tuple[str, str]]:
    """The texts of an Exif block."""
    try:
        with _quiet():
            top = {tag: exif.get(tag) for tag in EXIF_TEXTS}
            comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    except Exception:  # Pillow's parser on untrusted bytes
        return
    if isinstance(comment, bytes | str) and (text := user_comment(comment)):
        yield from _by_name("parameters", text)
    for tag, value in top.items():
        if isinstance(value, str) and value.strip("\0 "):
            yield from _by_name(tag.name, _again(value.strip("\0 ")))


def _by_name(name: str, text: str) -> Iterator[tuple[str, str]]:
    """A text under the keyword that it would have in a PNG."""
    if match := re.match(r"(prompt|workflow|parameters)\s*:\s*(?=\{)", text, flags=re.IGNORECASE):
        yield match[1].lower(), text[match.end() :]
        return
    whole = json_object(text) if name == "parameters" else None
    if whole is not None and isinstance(whole.get("Comment"), str):  # NovelAI: a PNG's chunks as one object
        yield from ((str(key)[:80], value) for key, value in whole.items() if isinstance(value, str))
    elif whole is not None and any(isinstance(node, dict) and "class_type" in node for node in whole.values()):
        yield "prompt", text
    else:
        yield name, text


def _again(text: str) -> str:
    """Decodes an Exif string, which Pillow reads as Latin-1, as UTF-8 if it is valid."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def user_comment(data: bytes | str) -> str:
    """The text of an Exif UserComment.

    Its first eight bytes name the encoding. "UNICODE" does not specify a byte order, and tools do not follow the order
    of the Exif block around it. A byte order mark decides, else the order with more zero bytes where ASCII has them.
    """
    return (data if isinstance(data, str) else _comment(data)).strip("\0 \ufeff")


def _comment(data: bytes) -> str:
    code, rest = data[:8], data[8 : 8 + MAX_TEXT]
    if code == b"JIS\0\0\0\0\0" and b"\x1b$" in rest:
        return rest.decode("iso2022_jp", errors="replace")
    has_code = code in CODES
    if code == b"UNICODE\0" or (has_code and rest.count(0) > len(rest) / 4):
        if rest[:2] in (b"\xff\xfe", b"\xfe\xff"):
            order = "utf-16-le" if rest[:2] == b"\xff\xfe" else "utf-16-be"
            rest = rest[2:]
        else:
            before, after = rest[0::2].count(0), rest[1::2].count(0)
            with contextlib.suppress(UnicodeDecodeError):
                if before == after == 0:  # some tools write UTF-8 under that name
                    return rest.decode("utf-8")
            order = "utf-16-be" if before >= after else "utf-16-le"
        return rest[: len(rest) // 2 * 2].decode(order, errors="replace")
    return decode(rest if has_code else data[:MAX_TEXT])


def _hidden(data: bytes) -> Iterator[tuple[str, str]]:
    """A text in the lowest bits of the pixels, column by column: of the alpha channel, or of red, green and blue.

    The format of sd_webui_stealth_pnginfo: a name of 15 letters, the length in bits as 32 bits, and the text, packed
    by gzip or not.
    """
    import numpy as np

    try:
        with _quiet(), Image.open(io.BytesIO(lean(data, ()).data), formats=["PNG", "WEBP"]) as image:
            if image.mode not in ("RGBA", "RGB") or image.width * image.height > MAX_HIDDEN:
                return
            pixels = np.asarray(image)
    except Exception:  # Pillow's parsers on untrusted bytes
        return
    places = (("png", pixels[..., 3:]),) if pixels.shape[-1] == 4 else ()
    for sort, channels in (*places, ("rgb", pixels[..., :3])):
        bits = (channels & 1).transpose(1, 0, 2).reshape(-1)
        head = np.packbits(bits[:152]).tobytes()
        name, size = head[:15], int.from_bytes(head[15:19], "big")
        if name not in (f"stealth_{sort}info".encode(), f"stealth_{sort}comp".encode()) or size > 8 * MAX_TEXT:
            continue
        packed = np.packbits(bits[152 : 152 + size]).tobytes()
        try:
            text = decode(inflate(packed, 31) if name.endswith(b"comp") else packed)
        except ValueError:
            continue
        whole = json_object(text)
        if whole is not None and isinstance(whole.get("Comment"), str):
            yield from ((str(key)[:80], value) for key, value in whole.items() if isinstance(value, str))
        else:
            yield "parameters", text
        return
