"""The tables in ``docs/results.md`` are those of the JSON beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_page_holds_what_the_json_says(repository: Path) -> None:
    command = [sys.executable, str(repository / "benchmarks" / "results_page.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository, check=False)
    assert done.returncode == 0, done.stderr or "run python benchmarks/results_page.py"
