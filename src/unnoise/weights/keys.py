"""Key tables: where each of our weights lies in the files of others. Loading and saving follow from the same rows.

A table is a tuple of rows, made by a module of ``weights.names`` from a part's config, for one layout. Names in it are
bare: a prefix such as ``model.diffusion_model.`` belongs to the file, and is taken off before. To open a part:

    names = {sd_unet.tidied(name, "original"): name for name in file}             # today's spelling -> the file's name
    config = sd_unet.from_shapes({tidy: shape_of(name) for tidy, name in names.items()}, "original", heads=8)
    rows = sd_unet.table(config, "original")
    report = match(rows, names, sd_unet.IGNORED["original"])                      # .missing and .strange are for people
    for row in rows:
        weights |= to_ours(row, tensor_of(names[row.theirs]))

and to save it: ``{row.theirs: to_theirs(row, weights) for row in rows}``, where ``shapes_to_theirs`` gives the header
first. Nothing is computed on the way, only sliced
and reshaped, so that both directions are exact in every dtype.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from unnoise.errors import UnnoiseError

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Change = Literal["same", "linear", "conv", "transposed", "rows"]


class Row(NamedTuple):
    """One tensor of their file, and ours that lie in it.

    Attributes:
        ours: names of our weights; several where theirs holds them stacked along axis 0.
        theirs: its bare name in their file.
        change: between the two.
            "same": none. "linear": none, but some files hold the matrix as a convolution of one cell (a, b, 1, 1).
            "conv": theirs is a convolution of one cell, ours a matrix (a, b). "transposed": theirs is (b, a).
            "rows": theirs is ours, stacked along axis 0.
    """

    ours: tuple[str, ...]
    theirs: str
    change: Change = "same"


class Match(NamedTuple):
    """How a file's names meet a table.

    Attributes:
        rows: those whose tensor is there, in the table's order.
        missing: names that the table has and the file lacks.
        strange: names that the file has and nothing knows, in the file's order.
    """

    rows: tuple[Row, ...]
    missing: tuple[str, ...]
    strange: tuple[str, ...]


def match(rows: Sequence[Row], names: Iterable[str], ignored: Iterable[str] = ()) -> Match:
    """Which rows the names of a file meet; names that one of the ignored patterns finds are passed over."""
    present, known = dict.fromkeys(names), {row.theirs for row in rows}
    patterns = [re.compile(pattern) for pattern in ignored]
    strange = [name for name in present if name not in known and not any(p.search(name) for p in patterns)]
    hits = tuple(row for row in rows if row.theirs in present)
    return Match(hits, tuple(row.theirs for row in rows if row.theirs not in present), tuple(strange))


def shapes_to_ours(row: Row, shape: Shape) -> dict[str, Shape]:
    """The shapes of our weights by the shape of theirs.

    Raises:
        UnnoiseError: theirs has no shape that this row can take.
    """
    if row.change in ("linear", "conv"):
        matrix, rest = shape[:2], shape[2:]
        if len(matrix) < 2 or any(size != 1 for size in rest):
            raise wrong(row, shape, "is no matrix, nor a convolution of one cell")
        return {row.ours[0]: matrix}
    if row.change == "transposed":
        if len(shape) != 2:
            raise wrong(row, shape, "is no matrix")
        return {row.ours[0]: shape[::-1]}
    if row.change == "rows":
        if not shape or shape[0] % len(row.ours):
            raise wrong(row, shape, f"does not fall into {len(row.ours)} equal parts")
        return dict.fromkeys(row.ours, (shape[0] // len(row.ours), *shape[1:]))
    return {row.ours[0]: shape}


def shapes_to_theirs(row: Row, shapes: Mapping[str, Shape]) -> Shape:
    """The shape of their tensor by the shapes of our weights."""
    shape = shapes[row.ours[0]]
    if row.change == "rows":
        return (sum(shapes[name][0] for name in row.ours), *shape[1:])
    if row.change == "transposed":
        return shape[::-1]
    return (*shape, 1, 1) if row.change == "conv" else shape


def to_ours(row: Row, tensor: Tensor) -> dict[str, Tensor]:
    """Our weights out of their tensor: views of it, so nothing is copied.

    Raises:
        UnnoiseError: theirs has no shape that this row can take.
    """
    shapes = shapes_to_ours(row, tuple(tensor.shape))
    if row.change == "rows":
        return dict(zip(row.ours, tensor.chunk(len(row.ours)), strict=True))
    if row.change == "transposed":
        return {row.ours[0]: tensor.mT}
    return {row.ours[0]: tensor.view(shapes[row.ours[0]]) if row.change in ("linear", "conv") else tensor}


def to_theirs(row: Row, tensors: Mapping[str, Tensor]) -> Tensor:
    """Their tensor out of our weights: a view where one of ours makes one of theirs, which need not be contiguous."""
    ours = [tensors[name] for name in row.ours]
    if row.change == "rows":
        import torch  # headers are read, and tables made, without it

        return torch.cat(ours)
    if row.change == "transposed":
        return ours[0].mT
    return ours[0][:, :, None, None] if row.change == "conv" else ours[0]


def state_to_ours(rows: Sequence[Row], state: Mapping[str, Tensor], ignored: Iterable[str] = ()) -> dict[str, Tensor]:
    """All of our weights out of all of their tensors, by bare and tidied names.

    Raises:
        UnnoiseError: a name is missing or strange, or a tensor has a wrong shape; nothing is taken over in part.
    """
    result = match(rows, state, ignored)
    if result.strange:
        raise UnnoiseError(f"there is the unknown weight {result.strange[0]!r}", "check that the config is the model's")
    if result.missing:
        raise UnnoiseError(f"the weight {result.missing[0]!r} is missing", "copy the model again")
    return {name: tensor for row in rows for name, tensor in to_ours(row, state[row.theirs]).items()}


def state_to_theirs(rows: Sequence[Row], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All of their tensors out of all of our weights.

    Raises:
        UnnoiseError: one of our names is missing or strange.
    """
    names = [name for row in rows for name in row.ours]
    strange, missing = sorted(weights.keys() - set(names)), sorted(set(names) - weights.keys())
    if strange or missing:
        what = f"has the unknown weight {strange[0]!r}" if strange else f"lacks the weight {missing[0]!r}"
        raise UnnoiseError(f"the part {what}", "check that the config is the part's")
    return {row.theirs: to_theirs(row, weights) for row in rows}


def count(names: Iterable[str], prefix: str) -> int:
    """How many different numbers follow a prefix in the names: ``encoder.layers.`` counts blocks."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({found[1] for name in names if (found := pattern.match(name))})


def size(shapes: Mapping[str, Shape], name: str, axis: int) -> int:
    """The size of a tensor along an axis.

    Raises:
        UnnoiseError: there is no such tensor, or it has fewer axes.
    """
    shape = shapes.get(name, ())
    if axis >= len(shape):
        what = (
            f"the weight {name!r} is missing"
            if name not in shapes
            else f"the weight {name!r} has the shape {list(shape)}"
        )
        raise UnnoiseError(what, "the file is damaged, or of a model that is not known")
    return shape[axis]


def wrong(row: Row, shape: Shape, why: str) -> UnnoiseError:
    """The error of a tensor whose shape a row cannot take."""
    return UnnoiseError(
        f"the weight {row.theirs!r} of shape {list(shape)} {why}",
        "the file is damaged, or of a model that is not known",
    )


def layers(ours: str, theirs: str, names: Mapping[str, str], kinds: Sequence[str] = ("weight", "bias")) -> list[Row]:
    """Rows of several layers below two prefixes, for names of layers {ours: theirs}, each with weight and bias."""
    return [Row((f"{ours}{a}.{kind}",), f"{theirs}{b}.{kind}") for a, b in names.items() for kind in kinds]


def matrices(ours: str, theirs: str, names: Mapping[str, str], change: Change) -> list[Row]:
    """Rows of linear layers below two prefixes, of which files keep the matrices by a change; biases are the same."""
    rows = layers(ours, theirs, names)
    return [row._replace(change=change) if row.theirs.endswith(".weight") else row for row in rows]
