"""The one door: what a file or folder is, whoever made it and whatever its name says."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unnoise import foreign
from unnoise.errors import UnnoiseError
from unnoise.foreign import HEAD, Kind, is_text, kind_of, parse_json, quoted, read
from unnoise.inspection.answer import Answer
from unnoise.inspection.descriptions import describe
from unnoise.inspection.folders import describe_folder
from unnoise.inspection.published import described, is_published
from unnoise.inspection.texts import describe_text
from unnoise.weights.gguf import PLAIN, read_gguf
from unnoise.weights.header import Header, read_header
from unnoise.weights.kinds import kind_of_tensors
from unnoise.weights.nested import INNER
from unnoise.weights.shapes import Finding, Shapes
from unnoise.weights.torch_files import TorchFile, read_pickle, read_zip

MAX_TEXT, MAX_PLAIN = 2**23, 2**21  # bytes that are read of JSON, of which a tokenizer has three megabytes, and of text
WEIGHTS = (
    ".safetensors",
    ".sft",
    ".ckpt",
    ".pt",
    ".pth",
    ".bin",
    ".gguf",
    ".pkl",
    ".pickle",
    ".pti",
    ".onnx",
    ".h5",
    ".npz",
)
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic")
PICKLES = (".pkl", ".pickle", ".p", ".pt", ".pth", ".ckpt", ".bin")
MAX_PIECES = 2**19  # of a vocabulary
AS_SAFETENSORS = "`unnoise convert` writes its weights as safetensors"
OTHERWISE = f"{AS_SAFETENSORS}, and runs nothing in it"


def look(path: Path) -> Answer:
    """What a file or folder is. No more than some megabytes of it are read, and nothing in it is run.

    Raises:
        UnnoiseError: there is none, it cannot be read, or it is of no kind that is known.
    """
    if path.is_dir():
        return describe_folder(path, look)
    head = read(path, HEAD)
    kind = kind_of(head)
    suffix = path.suffix.lower()
    if kind is not None and kind.format in (foreign.POINTER, foreign.PAGE, foreign.EMPTY):
        return in_its_place(path, kind, head)
    if kind is not None and kind.format in (foreign.JSON, foreign.TEXT) and suffix in (*WEIGHTS, *PICTURES):
        if suffix in PICKLES and (answer := bare_pickle(path)) is not None:
            return answer
        answer = text_or_json(path)
        fault = f"it is called {suffix}, and is {answer.format}: {quoted(head[:200].decode('utf-8', 'replace'), 80)}"
        return answer._replace(fault=answer.fault or fault, mend=answer.mend or "download the file itself")
    reader = READERS.get(kind.format) if kind is not None else None
    if reader is not None:
        return reader(path)
    if suffix in PICKLES and (answer := bare_pickle(path)) is not None:
        return answer
    if kind is not None and kind.format == foreign.PICTURE:
        from unnoise.inspection.pictures import describe_picture  # Pillow and numpy, where there is a picture

        return describe_picture(path, kind.name)
    if kind is not None:
        return other(path, kind, head)
    if suffix == ".safetensors":
        return safetensors(path)  # which reports how it is damaged
    raise UnnoiseError(
        f"{path} is of no kind that is known here; it begins with {head[:8]!r}", "check where it is from"
    )


def in_its_place(path: Path, kind: Kind, head: bytes) -> Answer:
    """The answer for a pointer, a page or nothing where a file should be."""
    facts: dict[str, Any] = {}
    if (size := re.search(rb"^(?:size|filesize) *=? *(\d{1,18})", head, re.M)) and kind.format == foreign.POINTER:
        facts["bytes of the file itself"] = int(size[1])
    if title := re.search(rb"<(title|code|message)>\s*([^<]{1,200})", head, re.I):
        facts["it says"] = " ".join(title[2].decode("utf-8", "replace").split())
    if kind.format == foreign.PAGE and path.suffix.lower() in (".html", ".htm", ".xml", ""):
        return Answer(kind.name, "HTML or XML", facts)
    return Answer(
        kind.name, "text" if kind.format != foreign.EMPTY else "nothing", facts, "", f"it is {kind.name}", kind.mend
    )


def safetensors(path: Path) -> Answer:
    """The answer for a safetensors file."""
    header = read_header(path)
    finding = kind_of_tensors(header.tensors, header.metadata)
    return with_survey(path, of_tensors(finding, "safetensors", header))


def with_survey(path: Path, answer: Answer) -> Answer:
    """The answer for a file of tensors, with more of it where it is a model of a family that is drawn with."""
    if answer.header is None or not is_published(answer.what, answer.header):
        return answer
    return described(path, answer)


def of_tensors(finding: Finding, form: str, header: Header) -> Answer:
    """The answer for a file of tensors."""
    if finding.what == "unknown":
        return Answer("weights of no model that is known here", form, finding.facts, finding.note, header=header)
    return Answer(finding.what, form, finding.facts, finding.note, header=header)


def gguf(path: Path) -> Answer:
    """The answer for a GGUF file."""
    header = read_gguf(path)
    labels = {k: v for k, v in header.metadata.items() if k in ("GGUF version", "general.architecture", "general.name")}
    finding = kind_of_tensors(header.tensors, {})
    facts = labels | dict(finding.facts)
    quantised = sorted({dtype for dtype, _ in header.tensors.values()} - set(PLAIN))
    note = f"this program does not read quantised weights ({', '.join(quantised)})" if quantised else AS_SAFETENSORS
    answer = of_tensors(finding._replace(facts=facts, note=note), "GGUF", header)
    return answer if quantised else with_survey(path, answer)


def bare_pickle(path: Path) -> Answer | None:
    """The answer for a pickle that does not begin as today's do; None if it is none."""
    file = read_pickle(path)
    names = file.opened[0].called
    sound = (
        not file.fault and file.opened[0].value is not None and not isinstance(file.opened[0].value, str | int | float)
    )
    return pickled(path, file) if (names and all(map(str.isprintable, names))) or sound else None


def zipped(path: Path) -> Answer:
    """The answer for a zip: of torch.save, of NumPy, or of anything else."""
    file, names = read_zip(path)
    if file is not None:
        return pickled(path, file)
    ends = sorted({Path(name).suffix.lower() for name in names if not name.endswith("/")})
    what = "a zip of NumPy arrays" if ends == [".npy"] else "a zip"
    return Answer(what, "zip", {"entries": len(names), "kinds": ", ".join(ends[:12]), "first": ", ".join(names[:5])})


def pickled(path: Path, file: TorchFile) -> Answer:
    """The answer for a file with pickles, none of which is opened."""
    header = Header(file.tensors, {}, path.stat().st_size)
    finding, facts = what_is_pickled(file)
    if file.places and set(file.places) != {"cpu"}:
        facts["saved on"] = ", ".join(file.places[:8])
    if file.foreign:
        facts["wants of other programs"] = ", ".join(file.foreign[:12])
    if any(each.inner for each in file.opened):
        facts["hides"] = "a pickle inside of a pickle"
    if file.traps:
        facts["would call"] = ", ".join(file.traps[:12])
        hidden = any(each.inner for each in file.opened)
        begins = (
            "it hides a pickle that runs code when it is opened" if hidden else "it runs code as soon as it is opened"
        )
        fault = f"{begins}: {', '.join(file.traps[:4])}"
        evidence = header if file.tensors else None
        return Answer(
            "a pickle that runs code", file.form, facts, "", fault, "do not open it with any program", evidence
        )
    note = "; ".join(filter(None, (finding.note, OTHERWISE if file.tensors else "")))
    mend = "download it again, or ask for the same weights as safetensors"
    return Answer(finding.what, file.form, facts, note, file.fault, mend, header if file.tensors else None)


def what_is_pickled(file: TorchFile) -> tuple[Finding, dict[str, Any]]:
    """What the tensors in a file with pickles are, and what else people should know of it."""
    if file.listed:
        return what_are_tensors(file.tensors, listed=True), {}
    if not file.tensors:
        empty = not file.top
        return Finding("a pickle without tensors" + (": an empty dictionary" if empty and not file.fault else "")), {
            "holds": ", ".join(file.top[:12]) or "nothing"
        }
    parts = {
        key: {n.removeprefix(f"{key}."): t for n, t in file.tensors.items() if n.startswith(f"{key}.")}
        for key in file.top
    }
    inner = next((key for key in INNER if len(parts.get(key, {})) > 1), None)
    tensors = parts[inner] if inner else file.tensors
    finding = kind_of_tensors(tensors, {})
    facts: dict[str, Any] = dict(finding.facts)
    nested = inner is None and len(file.tensors) > 1 and not set(file.top) & set(file.tensors) and len(file.top) < 50
    if inner or nested:
        facts["holds"] = ", ".join(file.top[:20])
    if nested and any("optim" in key for key in file.top):
        return Finding("a training checkpoint of a model that is not known here, nested in dictionaries"), facts
    if finding.what == "unknown":
        return Finding("weights of no model that is known here"), facts
    return finding, facts


def what_are_tensors(tensors: Shapes, listed: bool = False) -> Finding:
    """What tensors are, by their names and shapes; by their shapes alone where they were ``listed`` without names."""
    if not listed:
        return kind_of_tensors(tensors, {})
    what = f"a list of {len(tensors):,} tensors without names"
    if len(tensors) < 8 or not all(shape and len(shape) in (2, 4) for _, shape in tensors.values()):
        return Finding(what)
    text = all(n == 768 or n <= 128 for _, shape in tensors.values() for n in (shape or ())[:2])
    part = "its text encoder" if text else "its U-Net"
    return Finding(f"{what}: an adapter (LoRA) of cloneofsimo's first format, the part for {part}")


def text_or_json(path: Path) -> Answer:
    """The answer for a text file, JSON among them."""
    data, size = read(path, MAX_TEXT), path.stat().st_size
    is_json, why = data.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")[:1] in (b"{", b"["), ""
    if is_json and size <= MAX_TEXT:
        try:
            return describe(parse_json(data), path)
        except (ValueError, OverflowError) as error:
            why = f"it is no whole JSON ({error})"
    answer = describe_text(decoded(data[:MAX_PLAIN]), path)  # JSON lines and TOML begin as JSON does
    if why and answer.format == "text" and path.suffix.lower() in (".json", *WEIGHTS):
        return Answer("damaged JSON", "JSON", {}, "", why, foreign.AGAIN)
    if size > MAX_PLAIN:
        answer = answer._replace(note=f"only its first {MAX_PLAIN:,} bytes were looked at")
    return answer


def decoded(data: bytes) -> str:
    """Text of a file: UTF-8, or UTF-16 where a mark shows it."""
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")


def other(path: Path, kind: Kind, head: bytes) -> Answer:
    """The answer for a kind of file that is named and not read."""
    facts: dict[str, Any] = {}
    if kind.name == "gzip":
        try:
            inner = zlib.decompressobj(31).decompress(head, HEAD)
        except zlib.error:
            return Answer("gzip", "gzip", {}, "", "it is damaged", "download it again")
        if b"bpe_simple_vocab" in inner[:200]:
            return Answer("the merges of CLIP's tokenizer, as OpenAI published them", "gzip", {})
        content = kind_of(inner)
        facts["holds"] = content.name if content else "text" if is_text(inner) else "something that is not known here"
    if "SentencePiece" in kind.name:
        facts["entries"] = pieces(read(path, MAX_TEXT))
    article = "" if kind.name.startswith(("a ", "an ")) else "an " if kind.name in ("icon", "SVG", "OpenEXR") else "a "
    picture = kind.name in ("GIF", "BMP", "TIFF", "icon", "SVG", "Photoshop", "JPEG XL", "HEIC or AVIF", "OpenEXR")
    note = "this program reads PNG, JPEG and WebP; save it as one of them" if picture else ""
    noun = " picture" if picture else "" if article == "" else " file"
    return Answer(f"{article}{kind.name}{noun}", kind.name, facts, note)


def pieces(data: bytes) -> int:
    """How many entries a SentencePiece model has: the fields 1 at the front of its protocol buffer."""
    at = count = 0
    while data[at : at + 1] == b"\n" and at + 2 < len(data) and count < MAX_PIECES:
        length, at = data[at + 1], at + 2
        if length & 0x80:
            length, at = length & 0x7F | data[at] << 7, at + 1
        at, count = at + length, count + 1
    return count


READERS: dict[str, Callable[[Path], Answer]] = {
    foreign.SAFETENSORS: safetensors,
    foreign.GGUF: gguf,
    foreign.ZIP: zipped,
    foreign.PICKLE: lambda path: pickled(path, read_pickle(path)),
    foreign.JSON: text_or_json,
    foreign.TEXT: text_or_json,
}
