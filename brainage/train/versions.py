"""The software that a training ran with, for the facts that it leaves."""

from __future__ import annotations

import platform
from importlib.metadata import version

from brainage import __version__


def versions(*packages: str) -> dict[str, str]:
    """Versions of brainage, Python and of installed packages by their names on the package index."""
    own = {"brainage": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in packages}
