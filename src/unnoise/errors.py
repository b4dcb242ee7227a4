"""The one error that people see."""

from __future__ import annotations


class UnnoiseError(Exception):
    """A user's mistake or a fault of the machine, told in one line: what, where, and how to mend it.

    The command line prints it without a traceback and exits with a non-zero status.

    Args:
        what: what went wrong and where, without a full stop: ``"no checkpoint at runs/a"``.
        hint: how to mend it, an imperative: ``"name a folder that holds manifest.json"``.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = " ".join(what.split())
        self.hint = " ".join(hint.split())
        super().__init__(f"{self.what}; {self.hint}" if hint else self.what)
