"""What other tools call our solvers and spacings: one table, read in both directions.

Written are the labels of AUTOMATIC1111's web interface, and for what it lacks those of reForge and SD.Next. Read is any
spelling that differs from a label, from our own name or from an alias of the registry by case, blanks and marks alone,
so that ComfyUI's "dpmpp_2m", "k_dpmpp_2m" and "DPM++ 2M" are one.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from unnoise.core.notation import make
from unnoise.core.registry import find, index
from unnoise.errors import UnnoiseError

CUSTOM = "Custom"  # what has no counterpart elsewhere
SOLVERS = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "deis": "DEIS",
    "dpm-2-a": "DPM2 a",
    "dpm-adaptive": "DPM adaptive",
    "dpm-solver": "DPM2",
    "dpmpp-2m": "DPM++ 2M",
    "dpmpp-2m-sde": "DPM++ 2M SDE",
    "dpmpp-2m-sde(form=heun)": "DPM++ 2M SDE Heun",
    "dpmpp-2s": "DPM++ 2S",
    "dpmpp-2s-a": "DPM++ 2S a",
    "dpmpp-3m": "DPM++ 3M",
    "dpmpp-3m-sde": "DPM++ 3M SDE",
    "dpmpp-sde": "DPM++ SDE",
    "er-sde": "ER SDE",
    "euler": "Euler",
    "euler-a": "Euler a",
    "exp-heun": "exp_heun_2_x0",
    "gradient-estimation": "Gradient Estimation",
    "heun": "Heun",
    "ipndm": "IPNDM",
    "lcm": "LCM",
    "lms": "LMS",
    "plms": "PLMS",
    "res-multistep": "Res Multistep",
    "sa-solver": "SA Solver",
    "seeds-2": "SEEDS 2",
    "seeds-3": "SEEDS 3",
    "tcd": "TCD",
    "unipc": "UniPC",
}
SPACINGS = {
    "align-your-steps": "Align Your Steps",
    "beta": "Beta",
    "karras": "Karras",
    "kl-optimal": "KL Optimal",
    "leading": "DDIM",
    "linear-quadratic": "Linear Quadratic",
    "linspace": "Normal",
    "log-snr": "Exponential",
    "poly-exponential": "Polyexponential",
    "sgm-uniform": "SGM Uniform",
    "simple": "Simple",
}
ALONE = {"solvers": ("edm", "repaint"), "spacings": ("beta-sigma", "curve", "custom", "lcm", "resolution-shifted",
                                                     "shifted", "trailing")}  # fmt: skip  # ours, written as CUSTOM
MORE = {  # further spellings, read alone
    "solvers": {"lmsd": "lms", "dpm2ancestral": "dpm-2-a", "dpm2sa": "dpmpp-2s-a", "kdpm2a": "dpm-2-a"},
    "spacings": {"uniform": "linspace", "discrete": "linspace", "ddimuniform": "leading",
                 "alignyoursteps11": "align-your-steps", "vpsde": "linspace"},
}  # fmt: skip
DEFAULTS = ("automatic", "auto", "default", "native", "")  # a schedule that a tool chose by itself: none is named
TABLES = {"solvers": SOLVERS, "spacings": SPACINGS}


def written(kind: str, notation: str) -> str:
    """The name that other tools know a method by; ``CUSTOM`` where they have none.

    Settings in brackets do not change what a solver is called. A spacing with settings is another spacing.

    >>> written("solvers", "ddim(eta=0.5)"), written("spacings", "shifted(3)"), written("spacings", "normal")
    ('DDIM', 'Custom', 'Normal')
    """
    method, table = make(kind, notation), TABLES[kind]
    name: str = method.name
    if kind == "solvers":
        for special in (key for key in table if key.startswith(f"{name}(")):
            if vars(make(kind, special)) == vars(method):
                return table[special]
    elif changed(kind, method):
        return CUSTOM
    return table.get(name, CUSTOM)


def changed(kind: str, method: Any) -> dict[str, Any]:
    """The settings of a method that are not its defaults, as far as it keeps them by name."""
    try:
        usual = vars(find(kind, method.name)())
    except (TypeError, UnnoiseError):  # it needs a setting, as `custom` does: none of its own is a default
        return dict(vars(method))
    return {key: value for key, value in vars(method).items() if key not in usual or usual[key] != value}


def counterpart(kind: str, name: str) -> str | None:
    """Our notation for what another tool calls so; None where nothing here is that."""
    return _spellings(kind).get(key(name))


def parted(sampler: str) -> tuple[str, str | None]:
    """(sampler, schedule) of names that are both, as "DPM++ 2M Karras" and "euler discrete"."""
    words = sampler.split()
    for place in range(1, len(words)):
        rest = " ".join(words[place:])
        if counterpart("solvers", sampler) is None and (counterpart("spacings", rest) or key(rest) in DEFAULTS):
            return " ".join(words[:place]), rest
    return sampler, None


def key(name: str) -> str:
    """A spelling without what tools differ in."""
    short = re.sub(r"^(sample_|k_)|_gpu$", "", name.strip().lower().removeprefix("sample_")).replace("+", "p")
    return re.sub(r"[^a-z0-9]", "", short.removeprefix("k_"))


@cache
def _spellings(kind: str) -> dict[str, str]:
    spellings = dict(MORE[kind])
    for entry in index(kind).values():
        spellings |= {key(each): entry.name for each in (entry.name, *entry.aliases)}
    spellings |= {key(label): name for name, label in TABLES[kind].items()}
    return {spelling: name for spelling, name in spellings.items() if spelling != key(CUSTOM)}
