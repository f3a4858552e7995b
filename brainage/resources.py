"""Where the files that travel with the package lie: recipes, atlases and weights.

In a wheel ``pipelines/`` and ``atlases/`` sit inside the package; in a checkout they sit beside it.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource(relative: str) -> Path:
    """Path of a shipped file or folder, such as ``"pipelines/brain_age_t1.yaml"``.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    for root in (_PACKAGE, _PACKAGE.parent):
        if (root / relative).exists():
            return root / relative
    raise FileNotFoundError(f"{relative} is missing from this installation of brainage; reinstall it.")
