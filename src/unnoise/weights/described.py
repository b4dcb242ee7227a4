"""Descriptions of what a pickle would make: they stand for values, and none of these is ever made."""

from __future__ import annotations

from typing import Any, NamedTuple

from unnoise.weights.callables import REBUILD

DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict")
PARAMETERS = "torch.nn.modules.container.ParameterDict"
# torch's name of the numbers of a storage: (safetensors' name, bytes of a number)
NUMBERS = {
    "Float": ("F32", 4), "Half": ("F16", 2), "BFloat16": ("BF16", 2), "Double": ("F64", 8), "Long": ("I64", 8),
    "Int": ("I32", 4), "Short": ("I16", 2), "Char": ("I8", 1), "Byte": ("U8", 1), "Bool": ("BOOL", 1),
    "float8_e4m3fn": ("F8_E4M3", 1), "float8_e5m2": ("F8_E5M2", 1), "uint16": ("U16", 2), "uint32": ("U32", 4),
    "uint64": ("U64", 8), "float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2), "float64": ("F64", 8),
    "int64": ("I64", 8), "int32": ("I32", 4), "int16": ("I16", 2), "int8": ("I8", 1), "uint8": ("U8", 1),
    "bool": ("BOOL", 1),
}  # fmt: skip


class Global(NamedTuple):
    """A function or class that is named."""

    name: str


class Call(NamedTuple):
    """What a call would give: of a function or class, with these arguments."""

    function: str
    arguments: Any


class Tensor(NamedTuple):
    """A tensor as ``torch.save`` describes it.

    Attributes:
        dtype: torch's name of its numbers, a key of ``NUMBERS`` if it is known.
        shape: how many along each axis.
        storage: the name of the file that holds its numbers.
        numbers: how many that file holds.
        place: the device that it was on.
        offset: where its first number lies in the storage, in numbers.
        strides: numbers from one to the next along each axis; None where they are not given.
    """

    dtype: str
    shape: tuple[int, ...]
    storage: str
    numbers: int
    place: str
    offset: int = 0
    strides: tuple[int, ...] | None = None


class Pairs(list[Any]):
    """The entries of a dictionary, a key and a value each."""


def as_container(name: str, arguments: Any, most: int) -> Call | None:
    """The description of a dictionary that such a call would give, with the pairs that it begins with; or None.

    Raises:
        ValueError: it begins with more than ``most`` pairs.
    """
    if name == PARAMETERS:
        return Call(name, Pairs())
    if name not in DICTIONARIES:
        return None
    first = arguments[-1] if isinstance(arguments, tuple) and arguments else None
    if not isinstance(first, list):
        return Call(name, Pairs())
    if len(first) > most:
        raise ValueError("its dictionaries are copied too often")
    return Call(name, Pairs(tuple(each) for each in first if isinstance(each, list | tuple) and len(each) == 2))


def build(value: Any, state: Any) -> None:
    """Gives what was made its state; it matters only for torch's dictionaries of parameters."""
    if isinstance(value, Call) and value.function == PARAMETERS and isinstance(value.arguments, Pairs):
        for key, inner in state if isinstance(state, Pairs) else ():
            inner = inner.arguments if isinstance(inner, Call) else inner
            if key == "_parameters" and isinstance(inner, Pairs):
                value.arguments[:] = inner


def as_tensor(name: str, arguments: Any) -> Tensor | None:
    """The description of a tensor that such a call would give; None if it gives none."""
    if not REBUILD.match(name) or not isinstance(arguments, tuple) or not arguments:
        return None
    if name.endswith(("_rebuild_parameter", "_rebuild_parameter_with_state")):
        return arguments[0] if isinstance(arguments[0], Tensor) else None
    if name.endswith("_rebuild_from_type_v2"):
        inner = arguments[0].name if isinstance(arguments[0], Global) else ""
        return as_tensor(inner, arguments[2]) if len(arguments) > 2 and not inner.endswith("type_v2") else None
    return _rebuilt(name, arguments)


def _rebuilt(name: str, arguments: tuple[Any, ...]) -> Tensor | None:
    """Of ``_rebuild_tensor`` (storage, offset, shape, strides), and v2 and v3, which have more."""
    storage, shape = arguments[0], arguments[2] if len(arguments) > 2 else None
    if not isinstance(storage, Call) or storage.function != "storage" or not isinstance(shape, tuple):
        return None
    own = storage.arguments
    if not isinstance(own, tuple) or len(own) < 5 or not isinstance(own[1], Global):
        return None
    _, kind, key, place, numbers = own[:5]
    offset, strides = arguments[1], arguments[3] if len(arguments) > 3 else None
    view = own[5] if len(own) > 5 else None  # of another storage, before torch 1.6: (key, offset, numbers)
    if isinstance(view, tuple) and len(view) == 3:
        offset = offset + view[1] if type(offset) is int and type(view[1]) is int else None
    bad = [n for n in (*shape, numbers, offset, *(strides or ())) if type(n) is not int or not 0 <= n < 2**53]
    if len(shape) > 16 or bad or (strides is not None and len(strides) != len(shape)):
        return None
    dtype = kind.name.rpartition(".")[2].removesuffix("Storage")
    if name.endswith("_v3") and len(arguments) > 6 and isinstance(arguments[6], Global):
        dtype = arguments[6].name.rpartition(".")[2]
        numbers //= NUMBERS.get(dtype, ("", 1))[1] if kind.name.endswith("UntypedStorage") else 1
    meta = arguments[6] if name.endswith("_v2") and len(arguments) > 6 else None
    if isinstance(meta, Pairs) and any(value for _, value in meta):
        dtype = f"{dtype} with a sign or conjugate to be taken"
    return Tensor(dtype, shape, str(key)[:80], numbers, str(place)[:20], offset, strides)
