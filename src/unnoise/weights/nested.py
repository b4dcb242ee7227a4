"""Which record of a checkpoint holds the model: state dicts lie at its top, or under names that trainers use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from unnoise.errors import UnnoiseError
from unnoise.foreign import quoted
from unnoise.weights.described import NUMBERS, Call, Pairs, Tensor
from unnoise.weights.shapes import MAX_NAME

INNER = (  # names under which the weights of one model lie, the likeliest first
    "state_dict", "model_state_dict", "model", "params_ema", "params", "module", "ema", "state", "net", "generator",
)  # fmt: skip
MAX_LEAVES, MAX_DEPTH, MAX_TENSORS = 1_000_000, 12, 100_000
LISTED = 12  # names in a message


class Piece(NamedTuple):
    """A tensor that is to be written, and where its numbers are.

    Attributes:
        name: of the tensor.
        dtype: safetensors' name of its numbers.
        shape: how many along each axis.
        strides: numbers from one to the next along each axis.
        offset: its first number in the storage.
        storage: its name.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    storage: str


class Chosen(NamedTuple):
    """The record of a checkpoint that is taken.

    Attributes:
        pieces: its tensors.
        taken: its name, words joined by dots; "" if it is the whole.
        left: names of what is left out.
        listed: whether it is a list of tensors without names.
    """

    pieces: tuple[Piece, ...]
    taken: str
    left: tuple[str, ...]
    listed: bool


def entries(value: Any) -> list[tuple[str, Any]]:
    """(key, value) of a dictionary or list that a pickle would make; of two equal keys the later counts."""
    if isinstance(value, Call) and isinstance(value.arguments, Pairs):
        value = value.arguments
    if isinstance(value, Pairs):
        plain = [(key, inner) for key, inner in value if isinstance(key, str | bool | float) or _small(key)]
        return list({str(key): inner for key, inner in plain}.items())
    if isinstance(value, list | tuple) and not isinstance(value, Tensor | Call):
        return [(str(place), inner) for place, inner in enumerate(value)]
    return []


def _small(key: Any) -> bool:
    return type(key) is int and abs(key) < 2**63


def holds_more(value: Any) -> bool:
    """Whether it is a dictionary or list."""
    return isinstance(value, list | tuple) and (
        not isinstance(value, Tensor | Call) or (isinstance(value, Call) and isinstance(value.arguments, Pairs))
    )


def leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """(name, description) of all that is no dictionary or list, names joined by dots.

    Raises:
        ValueError: it holds too much, or is nested too deeply.
    """
    waiting, count = [("", value, 0)], 0
    while waiting:
        name, value, depth = waiting.pop()
        count += 1
        if count + len(waiting) > MAX_LEAVES or depth > MAX_DEPTH:
            raise ValueError("it holds dictionaries and lists without end")
        if holds_more(value):
            waiting.extend([(f"{name}.{key}" if name else key, each, depth + 1) for key, each in entries(value)][::-1])
        else:
            yield name, value


def count_tensors(value: Any) -> int:
    """How many tensors it holds."""
    return sum(isinstance(leaf, Tensor) for _, leaf in leaves(value))


def choose(value: Any, key: str = "") -> Chosen:
    """The record that holds a model.

    Args:
        value: what a pickle would make.
        key: the name of the record to take, words joined by dots; "" to look for it.

    Raises:
        UnnoiseError: there is no such record, none is known as a model's, or it holds no tensors.
        ValueError: it holds too much, or a tensor that is not read.
    """
    check_storages(value)
    taken = ""
    left: list[str] = []
    rest: list[str] = []
    if key:
        value = named(value, key)
        taken = key
    else:
        while isinstance(inside := model_in(value), str):
            children = dict(entries(value))
            left += [f"{taken}.{name}" if taken else name for name in children if name != inside]
            value, taken = children[inside], f"{taken}.{inside}" if taken else inside
        refuse_trainings(value)
    pieces = []
    for name, leaf in leaves(without_optimisers(value, rest)):
        if isinstance(leaf, Tensor):
            pieces.append(piece(name or "tensor", leaf))
        elif isinstance(leaf, Call) and "_rebuild_" in leaf.function:
            raise ValueError(f"{name[:80]} is no tensor that is read here ({leaf.function})")
        else:
            rest.append(name)
    if not pieces:
        what = f"{taken} in it holds" if taken else "it holds"
        held = ", ".join(name for name, _ in entries(value)[:LISTED]) or "an empty dictionary"
        raise UnnoiseError(f"{what} no tensors: {held}", "name a file of weights")
    if len(pieces) > MAX_TENSORS:
        raise ValueError(f"it holds {len(pieces):,} tensors, more than {MAX_TENSORS:,}")
    listed = isinstance(value, list | tuple) and not isinstance(value, Pairs | Call | Tensor)
    return Chosen(checked(pieces), taken, tuple(left + rest), listed)


def check_storages(value: Any) -> None:
    """Ensures that tensors which share a storage say the same of it.

    Raises:
        ValueError: they do not.
    """
    known: dict[str, tuple[str, int]] = {}
    for name, leaf in leaves(value):
        if isinstance(leaf, Tensor) and leaf.dtype[:1].isupper():  # others have a type of their own in it
            own = leaf.dtype, leaf.numbers
            if known.setdefault(leaf.storage, own) != own:
                raise ValueError(f"{name[:80]} shares its storage with a tensor of another type or size")


def named(value: Any, key: str) -> Any:
    """The record of that name; a name may have dots of its own.

    Raises:
        UnnoiseError: there is none.
    """
    if not key:
        return value
    children = dict(entries(value))
    for name in sorted(children, key=len, reverse=True):
        if key == name or (key.startswith(f"{name}.") and holds_more(children[name])):
            return named(children[name], key[len(name) + 1 :])
    known = [name for name, inner in children.items() if holds_more(inner)]
    raise UnnoiseError(f"it has no record {quoted(key)}", f"one of: {listing(known)}" if known else "leave --key out")


def model_in(value: Any) -> str | None:
    """The name inside of a dictionary under which a model's weights lie; None if they lie in it itself."""
    children = dict(entries(value)) if holds_more(value) else {}
    direct = sum(isinstance(inner, Tensor) for inner in children.values())
    inner = ((name, children[name]) for name in INNER if holds_more(children.get(name)))
    return next((name for name, each in inner if count_tensors(each) >= max(1, direct)), None)


def refuse_trainings(value: Any) -> None:
    """Ensures that what is taken is not a training's checkpoint under names that are not known.

    Raises:
        UnnoiseError: it is one; its records are named.
    """
    children = entries(value)
    nested = not any(isinstance(inner, Tensor) for _, inner in children)
    if not nested or not any("optim" in name for name, _ in children):
        return
    records = []
    for name, inner in children:
        below = [(f"{name}.{key}", each) for key, each in entries(inner) if holds_more(each)] or [(name, inner)]
        records += [key for key, each in below if "optim" not in key and holds_more(each) and count_tensors(each)]
    if not records:
        return
    raise UnnoiseError(
        "it is a training's checkpoint of an unknown model, nested in dictionaries: "
        f"{listing([name for name, _ in children])}",
        f"choose what to take: --key {' or --key '.join(quoted(name, 80) for name in records[:4])}",
    )


def without_optimisers(value: Any, left: list[str]) -> Any:
    """The value without the states of optimisers at its top, whose names are added to ``left``."""
    children = entries(value)
    states = [name for name, inner in children if "optim" in name.split(".")[0] and holds_more(inner)]
    if not states or len(states) == len(children):
        return value
    left += states
    return Pairs((name, inner) for name, inner in children if name not in states)


def piece(name: str, tensor: Tensor) -> Piece:
    """A tensor to be written.

    Raises:
        ValueError: its numbers are of a type that safetensors files do not have, or reach out of its storage.
    """
    short = name[:80]
    if tensor.dtype not in NUMBERS:
        raise ValueError(f"{short} holds numbers of the type {tensor.dtype[:60]}, which are not read here")
    strides = tensor.strides if tensor.strides is not None else contiguous(tensor.shape)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, strides, strict=True))
    if 0 not in tensor.shape and last >= tensor.numbers:
        raise ValueError(f"{short} reaches out of its storage")
    return Piece(name, NUMBERS[tensor.dtype][0], tensor.shape, strides, tensor.offset, tensor.storage)


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of numbers that lie one after another."""
    strides, step = [], 1
    for count in reversed(shape):
        strides.append(step)
        step *= count
    return tuple(reversed(strides))


def checked(pieces: list[Piece]) -> tuple[Piece, ...]:
    """The pieces, whose names must differ and be such as safetensors files can have.

    Raises:
        ValueError: they do not, or are not.
    """
    seen: set[str] = set()
    for name in (each.name for each in pieces):
        if name in seen:
            raise ValueError(f"two tensors in it have the name {name[:80]}")
        if len(name) > MAX_NAME or name == "__metadata__" or not _is_text(name):
            raise ValueError(f"{name[:80]!r} is no name for a tensor")
        seen.add(name)
    return tuple(pieces)


def listing(names: list[str]) -> str:
    """The first of some names, for a message."""
    return ", ".join(quoted(name, 60) for name in names[:LISTED]) + (" ..." if len(names) > LISTED else "")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
