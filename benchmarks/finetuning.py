"""How many subjects does fine-tuning take? Learning curves on a simulated scanner change.

    python benchmarks/finetuning.py --run RUN --recipe pipelines/brain_age_t1.yaml --pre PRE \\
        --json docs/results/finetuning.json --figure docs/images/finetuning.png

``--run`` is what ``brainage train`` left. Every fold's model is put before the fold that it never saw, whose
scans a SIMULATED other scanner has changed: tissue contrast is bent, the image blurred (``--change``). N of
them adapt the model, the others measure it; draws of N are repeated. The change is made by a formula, so the
figures show what adaptation can do, not how real scanners differ. Folds in the JSON are kept.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from brainage.config import BrainAgeRecipe, load_recipe
from brainage.data.datasets import AgedScan
from brainage.data.splits import age_stratified_folds
from brainage.files import replacing, write_json
from brainage.models.brain_age import BrainAgeModel, TokenLayout
from brainage.train.brain_age import BrainAgeTask
from brainage.train.checkpoints import read_training_state
from brainage.train.cohort import load_cohort
from brainage.train.devices import start_fabric
from brainage.train.finetune import FEWEST, METHODS, Features, choose, features, fit_change
from brainage.train.layout import lay_out

COUNTS = (3, 5, 10, 20, 30)
NAMES = ("none", "line", "head", "auto")


def contrast(volume: np.ndarray) -> np.ndarray:
    """Grey matter nearer to white, fluid brighter, 3 mm of blur."""
    inside = volume > 0
    bent = np.where(inside, 0.12 + 0.88 * np.clip(volume, 0, 1.5) ** 0.8, 0)
    blurred = ndimage.gaussian_filter(bent, 3 / 2.355 / 2)
    return np.where(inside, blurred, 0).astype(np.float32)


CHANGES = {"contrast and blur": contrast, "none": lambda volume: volume}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--pre", type=Path, required=True)
    parser.add_argument("--change", choices=[*CHANGES], default="contrast and blur")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--figure", type=Path, default=None)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, BrainAgeRecipe)
    layout, _ = lay_out(recipe)
    scans = load_cohort(options.pre, None, recipe).scans
    folds = age_stratified_folds(
        [scan.participant_id for scan in scans],
        [scan.age for scan in scans],
        recipe.train.folds,
        recipe.train.seed,
    )
    before: dict[str, Any] = json.loads(options.json.read_text()) if options.json.is_file() else {}
    description = f"scanner change simulated: {options.change}"
    by_fold = before.get("by_fold", {}) if before.get("synthetic") == description else {}
    for fold in range(recipe.train.folds):
        if str(fold) in by_fold:
            continue
        to_learn = [scan for scan, of in zip(scans, folds, strict=True) if of != fold]
        held_out = [scan for scan, of in zip(scans, folds, strict=True) if of == fold]
        model = fold_model(options.run / f"fold-{fold}", recipe, layout, to_learn)
        known = features(model, [changed_scan(scan, options.change) for scan in held_out])
        by_fold[str(fold)] = learning_curve(known, options.draws, fold)
        write_json(options.json, {"synthetic": description, "by_fold": by_fold})
    untouched = pd.read_csv(options.run / "cv_predictions.csv")
    result: dict[str, Any] = {
        "synthetic": description,
        "draws_a_fold": options.draws,
        "mae_without_change": float((untouched["ermoe_ba"] - untouched["age"]).abs().mean()),
        "mae": {
            name: {
                str(count): summary(
                    [mae for found in by_fold.values() for mae in found["mae"][name][str(count)]]
                )
                for count in COUNTS
                if by_fold["0"]["mae"][name][str(count)]
            }
            for name in NAMES
        },
        "auto_took": {
            str(count): {
                method: sum(found["auto_took"][str(count)].get(method, 0) for found in by_fold.values())
                for method in METHODS
            }
            for count in COUNTS
        },
        "by_fold": by_fold,
    }
    table = Table("method", *(f"{count} subjects" for count in COUNTS), title=result["synthetic"])
    for name in NAMES:
        found = result["mae"][name]
        table.add_row(name, *(f"{found[str(n)]['mean']:.2f}" if str(n) in found else "-" for n in COUNTS))
    console = Console(width=120)
    console.print(table)
    console.print("MAE without the change:", round(result["mae_without_change"], 2), result["auto_took"])
    write_json(options.json, result)
    if options.figure:
        draw(result, options.figure)


def learning_curve(known: Features, draws: int, seed: int) -> dict[str, Any]:
    """MAE of every method and number of subjects, by draw, and what ``auto`` took."""
    mae: dict[str, dict[str, list[float]]] = {name: {str(count): [] for count in COUNTS} for name in NAMES}
    taken: dict[str, Counter[str]] = {str(count): Counter() for count in COUNTS}
    rng = np.random.default_rng(seed)
    for count in COUNTS:
        for _ in range(draws):
            order = rng.permutation(len(known.age_N))
            few, rest = known.only(order[:count]), known.only(order[count:])
            for name in NAMES:
                method = choose(few)[0] if name == "auto" else name
                if name == "auto":
                    taken[str(count)][method] += 1
                if count >= FEWEST.get(method, 0):
                    mae[name][str(count)].append(error(method, few, rest))
    return {"mae": mae, "auto_took": {count: dict(found) for count, found in taken.items()}}


def fold_model(
    folder: Path, recipe: BrainAgeRecipe, layout: TokenLayout, to_learn: list[AgedScan]
) -> BrainAgeModel:
    """The averaged weights that a fold's epochs ended with, and the head that training fits to them last."""
    state = read_training_state(folder / "training_state.pt")["averaged"]
    model = BrainAgeModel(recipe.model, layout, 50.0, 20.0)
    model.load_state_dict(
        {name.removeprefix("module."): value for name, value in state.items() if name != "n_averaged"}
    )
    task = BrainAgeTask(model, to_learn, recipe.train, probe_copies=recipe.train.probe_copies)
    task.finish(model, start_fabric(recipe.train))
    return model.eval()


def changed_scan(scan: AgedScan, change: str) -> AgedScan:
    volume = CHANGES[change](scan.volume[0].float().numpy())
    return replace(scan, volume=torch.from_numpy(np.ascontiguousarray(volume)).half()[None])


def error(method: str, few: Features, rest: Features) -> float:
    """MAE on the rest after adapting to few, years."""
    change = fit_change(method, few)
    return float(np.abs(change.apply(rest.predicted_N, rest.tokens_NF) - rest.age_N).mean())


def summary(values: list[float]) -> dict[str, float]:
    low, high = np.quantile(values, [0.1, 0.9])
    return {"mean": float(np.mean(values)), "p10": float(low), "p90": float(high)}


def draw(result: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, found in result["mae"].items():
        counts = [int(count) for count in found]
        axes.plot(counts, [found[str(count)]["mean"] for count in counts], "o-", label=name)
    axes.axhline(result["mae_without_change"], color="#444444", linestyle="--", label="without the change")
    axes.set(
        xlabel="subjects to adapt to", ylabel="MAE on the others (years)", title="simulated scanner change"
    )
    axes.set_xticks(COUNTS)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9, loc="center right")
    axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=130)


if __name__ == "__main__":
    main()
