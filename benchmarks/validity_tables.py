"""The tables of the pages on calibration, validity, fine-tuning and foreign scans, from ``docs/results``.

    python benchmarks/validity_tables.py

A table stands between ``<!-- NAME -->`` and ``<!-- end -->``; the rest of a page is left as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> None:
    for page in sorted(DOCS.glob("*.md")):
        text = before = page.read_text("utf-8")
        for name, (source, make) in TABLES.items():
            result = DOCS / "results" / f"{source}.json"
            if f"<!-- {name} -->" in text and result.is_file():
                table = make(json.loads(result.read_text("utf-8")))
                pattern = rf"<!-- {name} -->.*?<!-- end -->"
                text = re.sub(
                    pattern, lambda _, n=name, t=table: f"<!-- {n} -->\n{t}\n<!-- end -->", text, flags=re.S
                )
        if text != before:
            page.write_text(text, "utf-8")


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def coverage(result: dict[str, Any]) -> str:
    one, shipped = (result["coverage_90"][name] for name in ("one width", result["shipped"]))
    divided = result["divisions"][result["shipped"]]
    header = ["", "scans", "one width for all", "width, y", "adaptive (shipped)", "width, y"]
    header.append(f"{result['source']['divisions']} divisions")
    rows = [
        [
            group,
            str(one[group]["n_scans"]),
            *held(one[group]),
            *held(shipped[group]),
            f"{100 * divided[group]['coverage']:.1f} %",
        ]
        for group in one
    ]
    return table(header, rows)


def held(figures: dict[str, Any]) -> list[str]:
    low, high = figures["coverage_ci95"]
    share = f"{100 * figures['coverage']:.1f} % ({100 * low:.0f} to {100 * high:.0f})"
    return [share, f"{figures['mean_width']:.1f}"]


def bias(result: dict[str, Any]) -> str:
    names = {"raw": "raw", "cole": "Cole", "de_lange": "de Lange & Cole"}
    rows = []
    for key, name in names.items():
        found = result["bias"][key]
        rows.append(
            [name, f"{found['gap_slope']:+.3f}", f"{found['mean_gap']:+.2f}", f"{found['sd_gap']:.2f}"]
        )
    return table(["gap", "slope on age", "mean, years", "standard deviation, years"], rows)


def clinical(result: dict[str, Any]) -> str:
    regression, matched, mmse = result["regression"], result["matched"], result["mmse"]
    rows = [
        [
            "gap of CDR > 0 over healthy, adjusted for age, age squared and sex, years",
            f"{regression['years']:+.1f}",
            between(regression["years_ci95"]),
        ],
        [
            "the same in standard deviations",
            f"{regression['effect_size']:.2f}",
            between(regression["effect_size_ci95"]),
        ],
        [
            f"over healthy of that sex and age ± 3 y ({matched['median_healthy_each']:.0f} each), years",
            f"{matched['years']:+.1f}",
            f"{between(matched['years_ci95'])}; Wilcoxon p = {matched['p_wilcoxon']:.2g}",
        ],
        *(
            [f"AUC, {name.replace('_', ' ')}", f"{found['auc']:.2f}", between(found["ci95"])]
            for name, found in result["auc"].items()
        ),
        *(
            [
                f"corrected gap with MMSE, {who} (n = {mmse[who]['n']}): partial Spearman",
                f"{mmse[who]['partial_spearman']:+.2f}",
                between(mmse[who]["ci95"]),
            ]
            for who in mmse
        ),
    ]
    return table(["", "estimate", "95 % interval"], rows)


def clinical_groups(result: dict[str, Any]) -> str:
    rows = [
        [
            f"CDR {cdr}",
            str(found["n"]),
            *(f"{mean:+.1f} ± {sd:.1f}" for mean, sd in (found["gap"], found["corrected_gap"])),
        ]
        for cdr, found in result["by_cdr"].items()
    ]
    return table(["", "people", "gap, years (mean ± sd)", "corrected gap"], rows)


def finetuning(result: dict[str, Any]) -> str:
    counts = list(result["mae"]["none"])
    rows = []
    for name, found in result["mae"].items():
        cells = [f"{found[n]['mean']:.2f}" if n in found else "" for n in counts]
        rows.append([name, *cells])
    return table(["method", *(f"{n} subjects" for n in counts)], rows)


def foreign(result: dict[str, Any]) -> str:
    rows = []
    for case in dict.fromkeys(row["case"] for row in result["cases"]):
        found = [row for row in result["cases"] if row["case"] == case]
        flagged = [row for row in found if row["status"] != "ok"]
        rows.append(
            [
                case,
                str(len(found)),
                str(sum(row["status"] == "failed" for row in found)),
                str(sum(row["status"] == "warning" for row in found)),
                str(sum(row["by_distance"] for row in found)),
                str(sum(row["by_part"] for row in found)),
                str(len(found) - len(flagged)),
            ]
        )
    return table(
        ["case", "scans", "refused", "warned of", "by the distance", "by that of a part", "passed as ok"],
        rows,
    )


def rescans(result: dict[str, Any]) -> str:
    rows = [
        [
            name,
            str(found["scans"]),
            f"{found['median']:.2f}",
            f"{found['mean_signed']:+.2f}",
            f"{found['largest']:.1f}",
        ]
        for name, found in result["changes"].items()
    ]
    return table(["change", "scans", "median shift, years", "mean shift", "largest"], rows)


def between(interval: list[float]) -> str:
    low, high = interval
    return f"{low:.2f} to {high:.2f}"


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "coverage": ("calibration", coverage),
    "bias": ("calibration", bias),
    "clinical": ("clinical_validity", clinical),
    "clinical groups": ("clinical_validity", clinical_groups),
    "finetuning": ("finetuning", finetuning),
    "foreign": ("out_of_distribution", foreign),
    "rescans": ("rescans", rescans),
}


if __name__ == "__main__":
    main()
