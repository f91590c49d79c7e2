"""What a user can put right."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right.

    The message is one line that names the value received and what would work. Entry points print it without a
    traceback and end with exit status 2.
    """

    def __str__(self) -> str:
        # One line, whatever a library put into the reason that was passed on.
        return " ".join(super().__str__().split())


class StoppedError(Exception):
    """A training was ended early on purpose, which is no failure."""
