"""Parts of published models: found in files by names, and fitted whole, by name, shape and type, or refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from unnoise.errors import UnnoiseError
from unnoise.weights import keys
from unnoise.weights.config import to_json
from unnoise.weights.families.family import DENOISER, Family, Piece
from unnoise.weights.shapes import FLOATS
from unnoise.weights.sources import Source

if TYPE_CHECKING:
    from torch import Tensor

STRAY = re.compile(  # names in single files that are no weights of a part
    r"""
    ^model_ema\. | ^first_stage_model\.loss\.                # averages, and the judge of an autoencoder's training
    | (^|\.)(vision_model|visual|visual_projection)\.         # CLIP's half that sees
    | \.lora_ | \.alpha$                                      # what a merge of an adapter left
    | (^|\.)(logit_scale|global_step|epoch|scale_factor)$     # of training
    | (^|\.)(v_pred|ztsnr)$                                   # marks
    | (betas|alphas_cumprod|alphas_cumprod_prev|posterior_\w+|(sqrt|log)_\w+_cumprod|sqrt_recipm1_alphas_cumprod)$
    | (^|\.)(logvar|lvlb_weights|denoiser\.sigmas)$           # tables of noise levels
    """,
    re.X,
)


class Part(NamedTuple):
    """A part of an opened model.

    Attributes:
        piece: of the family.
        source: where its tensors lie.
        layout: of their names.
        names: {name in the key table: name in the source}.
        config: of ours.
        rows: the key table.
    """

    piece: Piece
    source: Source
    layout: str
    names: Mapping[str, str]
    config: Any
    rows: tuple[keys.Row, ...]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(our name, tensor) of all weights, in the file's precision; views of what is mapped, where that is possible.

        Raises:
            UnnoiseError: a file is damaged.
        """
        back = {self.names[row.theirs]: row for row in self.rows}
        for name, tensor in self.source.tensors(back):
            yield from keys.to_ours(back[name], tensor).items()


def locate(source: Source, piece: Piece) -> tuple[str, dict[str, str]] | None:
    """(layout, {name in the key table: name in the source}) of a part in a source; None where it is not there."""
    names = piece.names
    for prefix, layout in piece.prefixes:
        bare = {}
        for name in source.places:
            if name.startswith(prefix):
                bare[names.tidied(name[len(prefix) :], layout)] = name
        if piece.signature[layout] in bare:
            return layout, bare
    return None


def config_of(piece: Piece, source: Source, layout: str, names: Mapping[str, str], **hints: Any) -> Any:
    """The config of a part: as the file beside it says, else read off its shapes."""
    shapes = {bare: source.places[name].shape for bare, name in names.items()}
    try:
        if source.config is not None and layout == piece.layout:
            return piece.names.from_config(source.config)
        return piece.names.from_shapes(shapes, layout, **hints)
    except UnnoiseError as error:
        raise UnnoiseError(f"{source.path}: {error.what}", error.hint) from None


def fitted(name: str, piece: Piece, source: Source, layout: str, names: dict[str, str], folder: bool) -> Part:
    """A part whose tensors all fit, by name and type; ``check_shapes`` is for the rest.

    Args:
        folder: whether it is of a folder in diffusers' layout.

    Raises:
        UnnoiseError: they do not, which are named.
    """
    config = replace(config_of(piece, source, layout, names, **piece.hints), **piece.settings)
    if piece.cut and (folder or config.depth % 2):  # whole towers have an even number of blocks
        config = replace(config, cut=piece.cut)
    rows = piece.names.table(config, layout)
    where = f"the {name} in {source.path}"
    match = keys.match(rows, names, piece.names.IGNORED[layout])
    if match.missing:
        raise UnnoiseError(f"{where} lacks {some(match.missing)}", "it is damaged, or of another kind")
    if strange := [each for each in match.strange if not STRAY.search(names[each])]:
        raise UnnoiseError(f"{where} has the unknown {some(strange)}", "it is of a kind that is not known here")
    for row in rows:
        place = source.places[names[row.theirs]]
        if place.dtype not in FLOATS.values():
            raise UnnoiseError(
                f"{where}: {place.name[:80]} is {place.dtype[:20]}, a type that cannot be drawn with yet",
                "write it anew: `unnoise convert FILE --out NEW.safetensors --dtype float32`"
                if place.dtype == "F64"
                else f"use the model in {', '.join(FLOATS)}",
            )
    return Part(piece, source, layout, names, config, rows)


def check_shapes(name: str, part: Part) -> None:
    """Ensures that the tensors of a part have the shapes that its network needs.

    Raises:
        UnnoiseError: they have not; the first is named.
    """
    from unnoise.weights.parts import build  # torch, without which headers are read

    entry = {"kind": part.piece.kind, "name": part.piece.name, "config": to_json(part.config)}
    shapes = {key: tuple(tensor.shape) for key, tensor in build(name, entry, len(part.rows)).state_dict().items()}
    for row in part.rows:
        place = part.source.places[part.names[row.theirs]]
        for ours, shape in keys.shapes_to_ours(row, place.shape).items():
            if shapes.pop(ours, None) != shape:
                where = f"the {name} in {part.source.path}"
                raise UnnoiseError(f"{where}: {place.name[:80]} has the shape {list(place.shape)}", "it is damaged")
    assert not shapes, f"the key table of {name} lacks {sorted(shapes)[:3]}"


def check_widths(family: Family, parts: Mapping[str, Part]) -> None:
    """Ensures that towers and denoiser, autoencoder and denoiser go together, of those parts that are there.

    Raises:
        UnnoiseError: they do not.
    """
    if DENOISER not in parts:
        return
    network = parts[DENOISER].config
    for row in family.layout["tokens"]:
        if not all(name in parts for name in row):
            continue
        width = sum(parts[name].config.width for name in row)
        if width != network.text_width:
            what = f"{' and '.join(row)} give vectors of width {width}, the denoiser attends to {network.text_width}"
            raise UnnoiseError(what, "the parts are of different models: name others with --part")
    channels = parts["autoencoder"].config.latent_channels if "autoencoder" in parts else network.channels_out
    if channels != network.channels_out:
        what = f"the autoencoder has {channels} channels, the denoiser {network.channels_out}"
        raise UnnoiseError(what, "the parts are of different models: name others with --part")


def some(names: Sequence[str]) -> str:
    """The first three names, and how many there are besides."""
    first = ", ".join(name[:80] for name in names[:3])
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first
