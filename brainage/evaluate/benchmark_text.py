"""A comparison in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEADINGS = (
    "contestant",
    "seeds",
    "MAE, years",
    "95 %",
    "range over seeds",
    "difference to {reference}",
    "r",
    "slope",
    "epochs",
    "parameters",
    "MFLOP a scan",
    "ms a scan",
    "load Gini",
)


def benchmark_markdown(result: Mapping[str, Any]) -> str:
    """The table of :func:`~brainage.evaluate.benchmark.compare`, best first, and its claim in a sentence."""
    labels = {row["contestant"]: row["label"] for row in result["contestants"]}
    reference = labels[result["reference"]]
    done = sorted((row for row in result["contestants"] if row["seeds"]), key=lambda row: row["mae"])
    lines = [
        f"{result['n_subjects']} subjects, {result['n_scans']} scans, {result['folds']} folds by subject.",
        "",
        _line(heading.format(reference=reference) for heading in _HEADINGS),
        _line("---" if number == 0 else "---:" for number in range(len(_HEADINGS))),
        *(_line(_cells(row)) for row in done),
        "",
        f"Difference: contestant - {reference}, years, paired by subject; positive: {reference} is better. "
        "Slope: of the gap on age, years a year. FLOPs: of one scan more in a batch. ms: one thread, a batch "
        "of one, on a machine with other work; of regressions without their features.",
    ]
    missing = [row for row in result["contestants"] if not row["seeds"] or row["unfinished_runs"]]
    if missing:
        said = "; ".join(f"{row['label']} ({row['unfinished_runs']} runs)" for row in missing)
        lines += ["", f"Without a seed that is finished on all folds, or with another one begun: {said}."]
    if claim := result["claim"]:
        lines += ["", _claim(claim, labels, reference)]
    return "\n".join(lines) + "\n"


def _claim(claim: Mapping[str, Any], labels: Mapping[str, str], reference: str) -> str:
    low, high = claim["margin_ci95"]
    verdict = "holds" if claim["holds"] else "does not hold"
    sure = "within" if claim["holds"] and not claim["beyond_chance"] else "beyond"
    text = (
        f"**The claim that {reference} errs at least {claim['share']:.0%} less than the runner-up {verdict} "
        f"here.** The best other contestant is {labels[claim['runner_up']]}; the error of {reference} is "
        f"{abs(claim['reduction']):.1%} {'lower' if claim['reduction'] >= 0 else 'higher'}. "
        f"Error less {1 - claim['share']:.2f} times the runner-up's: {claim['margin_years']:+.2f} years "
        f"({low:+.2f} to {high:+.2f}; below 0 where the claim holds)"
    )
    return f"{text}, {sure} what the choice of subjects explains." if claim["holds"] else f"{text}."


def _cells(row: Mapping[str, Any]) -> list[str]:
    difference = row.get("difference")
    by_seed = row["mae_by_seed"]
    return [
        row["label"],
        str(len(row["seeds"])),
        f"{row['mae']:.2f}",
        "{:.2f} to {:.2f}".format(*row["mae_ci95"]),
        f"{min(by_seed):.2f} to {max(by_seed):.2f}" if len(by_seed) > 1 else "-",
        "{:+.2f} ({:+.2f} to {:+.2f})".format(difference["years"], *difference["ci95"])
        if difference
        else "-",
        _number(row["pearson_r"], "{:.3f}"),
        f"{row['gap_slope']:+.2f}",
        _number(row["epochs"], "{}"),
        _number(row["parameters"], "{:,}"),
        _number(row["flops"], "{:.0f}", 1e-6),
        _number(row["seconds_per_scan"], "{:.1f}", 1000),
        _number(row["gini"], "{:.2f}"),
    ]


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "-" if value is None else form.format(value * factor if factor != 1 else value)


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
