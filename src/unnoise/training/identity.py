"""What a training is: compared with what a checkpoint knows of itself, and the machine with the one that wrote it."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch


def machine(device: torch.device) -> dict[str, Any]:
    """What bit-equal resuming is promised for: the same of each of these."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "processor": name}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [
            line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "model\t", "cpu fam"))
        ]
        return " / ".join(dict.fromkeys(names)) or platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def changes(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """What is another machine than before, a line each."""
    return [
        f"{key} is {now.get(key)}, it began with {before.get(key)}: the bits may differ from an unbroken run"
        for key in sorted(now.keys() | before.keys())
        if now.get(key) != before.get(key)
    ]


def plain(identity: Any) -> Any:
    """An identity as JSON values: dataclasses become records of all their fields."""
    if is_dataclass(identity) and not isinstance(identity, type):
        identity = asdict(identity)
    if isinstance(identity, Mapping):
        return {str(key): plain(value) for key, value in identity.items()}
    return identity


def match(identity: Any, then: Any, lenient: Sequence[str] = ()) -> None:
    """Ensures that a training is the one that a checkpoint began as, as far as that knows.

    A field that did not exist when the checkpoint was written must be at its default, which its dataclass has.

    Args:
        identity: of this training: JSON values, and dataclasses among them.
        then: the identity in the checkpoint, JSON values.
        lenient: names that may differ.

    Raises:
        KeyError: something differs.
    """
    here, before, usual = dict(_flat(plain(identity))), dict(_flat(then)), dict(_defaults(identity))
    for key in sorted(here.keys() | before.keys()):
        if key.removeprefix("settings.") in lenient:
            continue
        began = before.get(key, usual.get(key, ...))
        if here.get(key, ...) != began:
            raise KeyError(f"{key} is {_text(here.get(key, ...))}, it began with {_text(began)}")


def _text(value: Any) -> str:
    return "not set" if value is ... else repr(value)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(each, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, json.loads(json.dumps(value))  # as a checkpoint gives it back: tuples are lists


def _defaults(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, default) of the fields of all dataclasses in an identity."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _defaults(each, f"{prefix}.{key}" if prefix else str(key))
    elif is_dataclass(value):
        for field in fields(value):
            default = field.default if field.default_factory is MISSING else field.default_factory()
            if default is not MISSING:
                yield from _flat(plain(default), f"{prefix}.{field.name}")
