"""Options of the command line that are the fields of a request: what is added there can be typed here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tyro

from unnoise.engine.request import Request

TYPES = {"int": int, "float": float, "str": str}


def request_fields() -> dict[str, Mapping[str, Any]]:
    """{field: its metadata} of those that are options, in their order; ``kind`` is what is typed."""
    options: dict[str, Mapping[str, Any]] = {}
    for name, each in Request.__dataclass_fields__.items():
        if "help" in each.metadata:
            kind = Path if each.metadata["picture"] else each.metadata.get("kind", TYPES.get(str(each.type), str))
            options[name] = {**each.metadata, "kind": kind}
    return options


def with_request_options(function: Callable[..., None]) -> Callable[..., None]:
    """The verb's function, with an option for each field of a request in the place of its ``**settings``.

    They are None where the command line does not name them.
    """
    own = inspect.signature(function, eval_str=True)
    parameters: list[inspect.Parameter] = []
    lines = []
    for parameter in own.parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        for name, about in request_fields().items():
            kind: Any = about["kind"] | None
            if "metavar" in about:
                from typing import Annotated

                kind = Annotated[kind, tyro.conf.arg(metavar=about["metavar"])]
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))
            lines.append(f"        {name}: {about['help']}")

    @functools.wraps(function)
    def whole(**values: Any) -> None:
        function(**values)

    del whole.__wrapped__  # whose own annotations tyro would read
    whole.__signature__ = own.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
    whole.__annotations__ = {each.name: each.annotation for each in parameters}
    whole.__doc__ = (function.__doc__ or "").rstrip() + "\n" + "\n".join(lines) + "\n    "
    return whole
