"""The one exception family of the package.

Every message is one sentence that names what was found, what was expected and what to do, so that a
command can print it as it is. ``exit_code`` is what the command line ends with when nothing else ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path


class BrainageError(Exception):
    """Base of every error that brainage raises on purpose."""

    exit_code = 1


class ConfigError(BrainageError, ValueError):
    """A setting breaks a rule.

    Args:
        field: name of the setting, as the user writes it.
        value: what was given.
        rule: what it must satisfy, as a clause ("must be smaller than dim (192), because ...").
    """

    exit_code = 2

    def __init__(self, field: str, value: object, rule: str) -> None:
        self.field, self.value, self.rule = field, value, rule
        # Of a whole section the rule names the settings that it is about.
        given = "" if isinstance(value, Mapping) else f" = {value!r}"
        super().__init__(f"{field}{given}: {rule}.")


class InputError(BrainageError):
    """A file cannot be used.

    Args:
        path: the file or folder. Only its name is printed, since folders often carry names of people.
        found: what it holds.
        expected: what it should hold.
        remedy: what the user can do.
    """

    def __init__(self, path: str | PathLike[str], found: str, expected: str, remedy: str) -> None:
        self.path, self.found, self.expected, self.remedy = Path(path), found, expected, remedy
        super().__init__(f"{self.path.name}: found {found}; expected {expected}; {remedy}.")


class CheckpointError(InputError):
    """A file given as a checkpoint is none, or is damaged."""


def plain_words(error: Exception) -> str:
    """An unforeseen error on one line, of an ``OSError`` without its path: folders carry names of people."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()) or type(error).__name__
