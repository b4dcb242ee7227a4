"""The one door: what a file says of how its picture was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from unnoise.pipelines.readers import comfyui, flat, infotext, invokeai, novelai, own
from unnoise.pipelines.readers.container import texts_of
from unnoise.pipelines.readers.reading import MAX_TEXT, Reading, json_object, unreadable

READERS: tuple[Callable[[Mapping[str, str]], Reading | None], ...] = (
    invokeai.read, novelai.read, infotext.read, flat.read, comfyui.read,
)  # fmt: skip


def read_settings(path: Path) -> Reading | None:
    """What a picture (PNG, JPEG, WebP) or a ``.json`` file says of how it was made; None where it says nothing known.

    Our own pictures are read by their record, exactly; ``Reading.record`` is it. The pixels are not looked at, unless
    the file has no text: some tools hide one there.

    Raises:
        UnnoiseError: the file cannot be opened, or is of no kind that carries settings.
    """
    if path.suffix.lower() == ".json":
        return _file(path)
    texts = texts_of(path)
    if (mine := own.read(texts, path)) is not None:
        return mine
    return next((found for read in READERS if (found := read(texts)) is not None), None)


def _file(path: Path) -> Reading | None:
    """A graph of ComfyUI, or flat settings."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise unreadable(path, "it is no UTF-8 text") from None
    values = json_object(text)
    if values is None:
        raise unreadable(path, "it is no JSON object" if len(data) <= MAX_TEXT else "it is too long")
    return comfyui.of_graph(values) or flat.file_settings(values)
