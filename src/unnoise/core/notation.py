"""Methods with their settings, as a person types them: ``ddim(eta=0.5)``, ``interval(apg(7), high=3)``.

``make`` reads the notation, ``write`` writes it.

A method's name or alias, and in brackets its settings by place or by name. A setting is a number, a word, a list of
numbers in square brackets, or, where one method wraps another, a method of the same kind. Names come from the registry
alone, so that nothing else can be called.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from unnoise.core import checks
from unnoise.core.registry import find
from unnoise.errors import UnnoiseError

_TOKEN = re.compile(r"""\s*(?:(?P<mark>[()\[\],=])|"(?P<quoted>[^"]*)"|(?P<word>[^()\[\],="]+))""")
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf)", re.IGNORECASE)
_WORDS = {"true": True, "false": False, "none": None}
_LONGEST, _DEEPEST = 1000, 8


class Notation(NamedTuple):
    """A method as it was written.

    Attributes:
        name: its name or alias.
        cls: what the registry has under it.
        settings: by their names; a setting that is itself a method is one of these.
    """

    name: str
    cls: Any
    settings: dict[str, Any]

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The settings that the method has, in their order."""
        return inspect.signature(self.cls).parameters


def make(kind: str, text: str, defaults: Mapping[str, Any] | None = None) -> Any:
    """The method that the text describes.

    Args:
        kind: of the registry: "solvers", "spacings", "guidances".
        text: the notation, at most 1,000 characters.
        defaults: settings for each method in it that has a setting of that name which the text leaves open.

    Raises:
        UnnoiseError: an unknown method or setting, a value that the method refuses, or brackets that do not match.
    """
    return _built(read(kind, text), defaults or {})


def complete(kind: str, text: str, defaults: Mapping[str, str]) -> str:
    """The notation with the defaults written into it, wherever the text leaves a setting of that name open.

    >>> complete("guidances", "interval(rescale, high=8)", {"scale": "3", "inner": "cfg(3)"})
    'interval(rescale(cfg(3)), high=8)'

    Raises:
        UnnoiseError: as ``make``, for names and brackets; the values are not tried.
    """
    return _text(read(kind, text), defaults)


def shortened(kind: str, text: str, defaults: Mapping[str, str]) -> str:
    """The notation without those settings that ``complete`` would write into it: its inverse.

    >>> shortened("guidances", "interval(rescale(cfg(3)), high=8)", {"scale": "3", "inner": "cfg(3)"})
    'interval(rescale, high=8)'
    """

    def short(notation: Notation) -> Notation:
        settings = {}
        for key, value in notation.settings.items():
            if key not in defaults or _value_text(value, {}) != defaults[key]:
                settings[key] = short(value) if isinstance(value, Notation) else value
        return notation._replace(settings=settings)

    return _text(short(read(kind, text)), {})


def read(kind: str, text: str) -> Notation:
    """A parsed notation, before anything is made of it.

    Raises:
        UnnoiseError: an unknown method or setting, or brackets that do not match.
    """
    return _Reader(kind, checks.text(kind.removesuffix("s"), text)).read()


def _built(notation: Notation, defaults: Mapping[str, Any]) -> Any:
    own = {key: _built(v, defaults) if isinstance(v, Notation) else v for key, v in notation.settings.items()}
    settings = {key: value for key, value in defaults.items() if key in notation.parameters} | own
    try:
        return notation.cls(**settings)
    except UnnoiseError as error:
        raise UnnoiseError(f"{notation.name}: {error.what}", error.hint) from None
    except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError) as error:
        raise UnnoiseError(
            f"{notation.name} does not take these settings: {error}", f"it has {_listed(notation.parameters)}"
        ) from None


def _text(notation: Notation, defaults: Mapping[str, str]) -> str:
    own = {key: _value_text(value, defaults) for key, value in notation.settings.items()}
    own |= {key: value for key, value in defaults.items() if key in notation.parameters and key not in own}
    parts: list[str] = []
    for place, key in enumerate(notation.parameters):  # by place as long as none is left out, then by name
        if key in own:
            parts.append(own[key] if place == len(parts) else f"{key}={own[key]}")
    return f"{notation.name}({', '.join(parts)})" if parts else notation.name


def _value_text(value: Any, defaults: Mapping[str, str]) -> str:
    return _text(value, defaults) if isinstance(value, Notation) else _written("a setting", value)


def write(method: Any) -> str:
    """The notation of a registered method: its name and, in brackets, the settings that are not the defaults.

    A setting is a parameter of the constructor, which the object keeps as an attribute of the same name.

    >>> write(make("guidances", "interval(cfg(5), high=8)"))
    'interval(inner=cfg(scale=5), high=8)'

    Raises:
        UnnoiseError: it is not registered, or has a setting that the notation has no words for, such as a network.
    """
    cls = type(method)
    name = vars(cls).get("name")  # its own: a subclass that is not registered has its parent's
    if not isinstance(name, str) or find(cls.kind, name) is not cls:
        raise UnnoiseError(f"{cls.__name__} is not registered, so that nothing can name it", "use a registered method")
    settings = []
    for key, parameter in inspect.signature(cls).parameters.items():
        value = getattr(method, key, parameter)
        if value is parameter:
            raise UnnoiseError(f"{name} does not keep its setting {key}", f"keep it as an attribute called {key}")
        if not _same(value, parameter.default):
            settings.append(f"{key}={_written(f'{name}: {key}', value)}")
    text = f"{name}({', '.join(settings)})" if settings else name
    if len(text) > _LONGEST:
        raise UnnoiseError(f"the settings of {name} take {len(text)} characters", f"use at most {_LONGEST}")
    return text


def _same(value: Any, default: Any) -> bool:
    """Whether a setting is its default; True and 1, or 1 and 1.0, count as equal where it is a number."""
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) == list(default)
    return value is default or (isinstance(value, int | float | str) and value == default)


def _written(name: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and value == value:
        return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, str) and '"' not in value:
        plain = re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value.lower() not in (*_WORDS, "inf")
        return value if plain else f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(_written(name, each) for each in value)}]"
    if hasattr(type(value), "kind"):
        return write(value)
    raise UnnoiseError(f"{name} is {checks.description(value)}, which cannot be written down", "use plain settings")


class _Reader:
    """A recursive descent over the tokens, one method a level."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind, self.text = kind, text
        self.base = kind.removesuffix("s").title()  # "Guidance": how an annotation names a method as its type
        if len(text) > _LONGEST:
            raise UnnoiseError(f"a {self.what} of {len(text)} characters is too long", f"use at most {_LONGEST}")
        self.tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(text.rstrip()):
            match = _TOKEN.match(text, place)
            if match is None or not match.lastgroup:
                raise self.wrong("a quotation mark stands alone")
            self.tokens.append((match.lastgroup, match[match.lastgroup].strip()))
            place = match.end()

    @property
    def what(self) -> str:
        return self.kind.removesuffix("s")

    def wrong(self, why: str) -> UnnoiseError:
        return UnnoiseError(
            f"the {self.what} {self.text[:80]!r} cannot be read: {why}", 'write it like "name(setting=1)"'
        )

    def read(self) -> Notation:
        notation = self.method(0)
        if self.tokens:
            raise self.wrong(f"{self.tokens[0][1]!r} is too much")
        return notation

    def take(self, mark: str) -> bool:
        """Whether the next token is this mark; it is then behind us."""
        if self.tokens and self.tokens[0] == ("mark", mark):
            self.tokens.pop(0)
            return True
        return False

    def method(self, depth: int) -> Notation:
        if not self.tokens or self.tokens[0][0] == "mark":
            raise self.wrong("a name is missing")
        if depth > _DEEPEST:
            raise self.wrong(f"it is more than {_DEEPEST} deep")
        name = self.tokens.pop(0)[1]
        method = Notation(name, find(self.kind, name), {})
        parameters, settings = method.parameters, method.settings
        if self.take("("):
            while not self.take(")"):
                key = self.key(name, list(parameters), len(settings), settings)
                settings[key] = self.value(str(parameters[key].annotation), depth)
                if not self.take(",") and self.tokens[:1] != [("mark", ")")]:
                    raise self.wrong("a bracket is not closed")
        return method

    def key(self, name: str, parameters: list[str], place: int, settings: Mapping[str, Any]) -> str:
        """The name of the next setting: as written, or the one at its place."""
        if self.tokens[1:2] == [("mark", "=")]:
            key = self.tokens[0][1].replace("-", "_")
            del self.tokens[:2]
        elif place < len(parameters):
            key = parameters[place]
        else:
            raise UnnoiseError(f"{name} has only {_listed(parameters)}", f"give it {len(parameters)} at most")
        if key not in parameters:
            raise UnnoiseError(f"{name} has no setting {key!r}", f"it has {_listed(parameters)}")
        if key in settings:
            raise UnnoiseError(f"{name} has {key} twice", "write it once")
        return key

    def value(self, annotation: str, depth: int) -> Any:
        if self.take("["):
            values = []
            while not self.take("]"):
                values.append(self.value("float", depth))
                if not self.take(",") and self.tokens[:1] != [("mark", "]")]:
                    raise self.wrong("a bracket is not closed")
            return values
        if not self.tokens or self.tokens[0][0] == "mark":
            raise self.wrong("a value is missing")
        sort, word = self.tokens[0]
        if sort == "word" and _NUMBER.fullmatch(word):
            self.tokens.pop(0)
            return int(word) if re.fullmatch(r"[+-]?\d+", word) else float(word)
        if self.base in annotation and word.lower() != "none":
            return self.method(depth + 1)
        self.tokens.pop(0)
        return _WORDS.get(word.lower(), word) if sort == "word" else word


def _listed(parameters: Any) -> str:
    return ", ".join(parameters) or "none"
