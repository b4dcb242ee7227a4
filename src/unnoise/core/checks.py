"""Arguments from outside become plain Python values, or are refused by name.

Each function takes the name of an argument and its value, and returns the value as a plain Python object: a number is
that number however it is spelt, so that 1, np.int64(1) and torch.tensor(1) draw one picture. True and False are no
numbers, text is never read as one, and a list of one number is a list.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unnoise.errors import UnnoiseError

if TYPE_CHECKING:
    import torch

SEEDS = 2**63  # seeds lie below it
PICTURES = 10_000  # of one prompt in one call
THREADS = 1024

T = TypeVar("T")


def whole(name: str, value: Any, least: int, most: float = math.inf) -> int:
    """The whole number that anything with ``__index__`` stands for, from ``least`` to ``most``.

    Raises:
        UnnoiseError: it is no whole number (1.0 is none), or out of range.
    """
    expected = f"a whole number, {least} or more" if most == math.inf else f"a whole number from {least} to {most}"
    try:
        result = operator.index(value) if _is_scalar(value) else None
    except (TypeError, ValueError, RuntimeError):
        result = None
    if result is None:
        raise UnnoiseError(f"{name} is {description(value)}, which is no whole number", f"give {expected}")
    if not least <= result <= most:
        raise UnnoiseError(f"{name} {description(result)} is out of range", f"choose {expected}")
    return result


def number(
    name: str,
    value: Any,
    least: float | None = None,
    most: float | None = None,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """The real number that anything with ``__float__`` or ``__index__`` stands for, of any library.

    Args:
        least, most: the bounds that it may touch; infinity is a number only where it is one of them.
        above, below: the bounds that it may not touch, where there is no ``least`` or ``most``.

    Raises:
        UnnoiseError: it is no number, NaN, or out of range.
    """
    expected = _number(least, most, above, below)
    try:
        result = float(value) if _is_scalar(value) else None
    except (ArithmeticError, TypeError, ValueError, RuntimeError):
        result = None
    if result is None or math.isnan(result):
        raise UnnoiseError(f"{name} is {description(value)}, which is no number", f"give {expected}")
    if not (
        (result > above if least is None else result >= least) and (result < below if most is None else result <= most)
    ):
        raise UnnoiseError(f"{name} {result:g} is out of range", f"choose {expected}")
    return result


def seed(name: str, value: Any, count: int = 1) -> int:
    """The first of ``count`` seeds, each one above the one before it, all from 0 to 2^63 - 1.

    Raises:
        UnnoiseError: it is no whole number, or out of range.
    """
    return whole(name, value, 0, SEEDS - count)


def flag(name: str, value: Any) -> bool:
    """True or False, NumPy's and torch's among them, or 1 or 0 for them.

    Raises:
        UnnoiseError: it is neither; no text means True.
    """
    try:
        if isinstance(value, bool) or (_dtype(value) == "bool" and _ndim(value) == 0):
            return bool(value)
        return bool(whole(name, value, 0, 1))
    except (RuntimeError, UnnoiseError):
        hint = "give True or False"
        raise UnnoiseError(f"{name} is {description(value)}, which is neither True nor False", hint) from None


def text(name: str, value: Any, hint: str = "give a str") -> str:
    """Text.

    Raises:
        UnnoiseError: it is none; neither bytes nor a path is.
    """
    if not isinstance(value, str):
        raise UnnoiseError(f"{name} is {description(value)}, which is no text", hint)
    return str(value)


def path(name: str, value: Any) -> Path:
    """A path, given as text or as a path of any library.

    Raises:
        UnnoiseError: it is neither, or names bytes.
    """
    if not isinstance(value, str | PathLike) or not isinstance(os.fspath(value), str) or "\0" in os.fspath(value):
        raise UnnoiseError(f"{name} is {description(value)}, which is no path", "give a str or a pathlib.Path")
    return Path(value)


def choice(name: str, value: Any, *among: str) -> str:
    """One of a few words.

    Raises:
        UnnoiseError: it is none of them.
    """
    if not isinstance(value, str) or value not in among:
        raise UnnoiseError(f"no {name} is called {description(value)}", f"choose one of: {', '.join(among)}")
    return str(value)


def several(name: str, value: Any, each: Callable[[str, Any], T], least: int = 1, most: int = PICTURES) -> list[T]:
    """A list, a tuple, a range, an array or the like, its members checked one by one under names such as "seeds[2]".

    Raises:
        UnnoiseError: it has no order or no length, is empty, too long or one text, or ``each`` refuses a member.
    """
    ordered = hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, type)
    if not ordered or isinstance(value, str | bytes | bytearray | memoryview | Mapping) or _ndim(value) == 0:
        raise UnnoiseError(
            f"{name} is {description(value)}, which is no list", "give a list; one thing is written [it]"
        )
    try:
        length = len(value)
    except OverflowError:
        length = most + 1
    if not least <= length <= most:
        raise UnnoiseError(f"{name} is {'too long' if length else 'empty'}", f"give {least} to {most} of them")
    return [each(f"{name}[{place}]", member) for place, member in enumerate(value)]


def instance(name: str, value: T, kind: type[Any], hint: str) -> T:
    """An object of that kind.

    Raises:
        UnnoiseError: it is of another; ``hint`` is how to get one.
    """
    if not isinstance(value, kind):
        raise UnnoiseError(f"{name} is {description(value)}, not {_a(kind)}", hint)
    return value


def called(name: str, value: T, hint: str) -> T:
    """An object that can be called, whatever its class.

    Raises:
        UnnoiseError: it cannot, or it is a class; ``hint`` is how to get one.
    """
    if isinstance(value, type) or not callable(value):
        raise UnnoiseError(f"{name} is {description(value)}, which cannot be called", hint)
    return value


def tensor(name: str, value: Any, shape: Sequence[int], rows: Sequence[int] = ()) -> torch.Tensor:
    """A tensor of floats, (B, *shape), where B is one of ``rows``, or any number where they are empty.

    Raises:
        UnnoiseError: it is of another shape or dtype, or no tensor.
    """
    from torch import Tensor

    expected = f"({' or '.join(map(str, rows)) or 'B'}, {', '.join(map(str, shape))})"
    hint = f"give a torch tensor of floats, {expected}"
    if not instance(name, value, Tensor, hint).is_floating_point():
        raise UnnoiseError(f"{name} has the dtype {_dtype(value)}", hint)
    if value.ndim == 0 or value.shape[1:] != tuple(shape) or (rows and len(value) not in rows):
        raise UnnoiseError(f"{name} has the shape {tuple(value.shape)}", hint)
    return value  # type: ignore[no-any-return]


def device(name: str, value: Any, hint: str = "use cpu or cuda") -> torch.device:
    """A device, or the one that torch knows by that name; whether it exists is not checked.

    Raises:
        UnnoiseError: it is neither a device nor text, or nothing is called that.
    """
    import torch

    if not isinstance(value, str | torch.device):
        raise UnnoiseError(f"{name} is {description(value)}, which names no device", hint)
    try:
        return torch.device(value)
    except (RuntimeError, ValueError):
        raise UnnoiseError(f"there is no {name} called {description(value)}", hint) from None


def description(value: Any) -> str:
    """A value as an error names it: a short plain one as it is, any other by its class or its length."""
    if value is None or isinstance(value, bool | float | str | complex):
        return repr(value if not isinstance(value, str) or len(value) <= 60 else f"{value[:60]}...")
    if type(value) is int:
        return str(value) if value.bit_length() < 200 else f"a number of {value.bit_length()} binary digits"
    return f"the class {value.__name__}" if isinstance(value, type) else _a(type(value))


def _a(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'aeiouAEIOU' else 'a'} {kind.__name__}"


def _number(least: float | None, most: float | None, above: float, below: float) -> str:
    """A number within these bounds, in words."""
    if least is not None and most is not None and most < math.inf:
        return f"a number from {least:g} to {most:g}"
    if least is None and most is None and -math.inf < above and below < math.inf:
        return f"a number between {above:g} and {below:g}"
    low = f"{least:g} or more" if least is not None else f"above {above:g}" if above > -math.inf else ""
    high = f"{most:g} or less" if most is not None else f"below {below:g}" if below < math.inf else ""
    high = "or infinity" if most == math.inf else high
    return f"a number {', '.join(filter(None, (low, high)))}" if low or high else "a finite number"


def _dtype(value: Any) -> str:
    """The name of an array's or tensor's dtype, such as "int64"; "" for what has none."""
    dtype = getattr(value, "dtype", "")
    return str(getattr(dtype, "name", dtype)).removeprefix("torch.")


def _ndim(value: Any) -> Any:
    return getattr(value, "ndim", None)


def _is_scalar(value: Any) -> bool:
    """Whether a value may stand for one real number: no truth value, text, list, array of any length, or complex."""
    if isinstance(value, bool | str | bytes | bytearray | complex) or _ndim(value):
        return False
    dtype = _dtype(value)
    return not dtype or dtype.startswith(("int", "uint", "float", "bfloat"))
