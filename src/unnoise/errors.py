"""The only error that users see."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Printable, in one line, and short enough to be read."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= 600 else f"{text[:400]} ... {text[-100:]}"


class UnnoiseError(Exception):
    """A user's mistake or a fault of the machine, in one line: what is wrong, where, and how to fix it.

    The command line prints it without a traceback and exits with a non-zero status.

    Args:
        what: what went wrong and where, without a full stop: ``"no checkpoint at runs/a"``.
        hint: how to fix it, an imperative: ``"name a folder that holds manifest.json"``.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        self.what, self.hint = one_line(what), one_line(hint)
        super().__init__(f"{self.what}; {self.hint}" if self.hint else self.what)
