"""Put the tables of ``docs/results/*.json`` that comparisons left into ``docs/results.md``.

    brainage benchmark pipelines/benchmark_brain_age.yaml --data PRE -o OUT \\
        --json docs/results/benchmark_brain_age.json
    python benchmarks/results_page.py

Between ``<!-- NAME -->`` and ``<!-- /NAME -->`` the page holds what ``NAME.json`` says; the prose around it
is kept. ``--check`` changes nothing and ends with 1 where page and JSON differ.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from brainage.evaluate.benchmark_text import benchmark_markdown

DOCS = Path(__file__).resolve().parent.parent / "docs"
_SECTION = re.compile(r"(<!-- (?P<name>\w+) -->\n).*?(<!-- /(?P=name) -->)", re.DOTALL)


def rendered(page: str, results: Path) -> str:
    """The page with every marked section made anew from its JSON."""

    def section(match: re.Match[str]) -> str:
        content = json.loads((results / f"{match['name']}.json").read_text("utf-8"))
        return f"{match[1]}{benchmark_markdown(content)}{match[3]}"

    return _SECTION.sub(section, page)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    page = DOCS / "results.md"
    before = page.read_text("utf-8")
    after = rendered(before, DOCS / "results")
    if not arguments.check:
        page.write_text(after, encoding="utf-8")
    return int(arguments.check and before != after)


if __name__ == "__main__":
    sys.exit(main())
