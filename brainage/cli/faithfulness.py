"""``brainage faithfulness``: whether the maps say what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table


def faithfulness(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for faithfulness.json and faithfulness.png.")
    ] = Path("faithfulness"),
    model: Annotated[
        Path | None, typer.Option("--model", help="A model.safetensors; by default the shipped one.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Real scans as well: a folder of brainage preprocess, with ages."),
    ] = None,
    participants: Annotated[
        Path | None, typer.Option("--participants", help="Of --data; by default the one in it.")
    ] = None,
    other: Annotated[
        list[Path] | None,
        typer.Option("--other", help="A model to compare maps with, such as one of another seed."),
    ] = None,
    people: Annotated[int, typer.Option("--people", min=4, help="Simulated people.")] = 24,
    restored: Annotated[
        int, typer.Option("--restored", min=0, help="Of how many each aged region is made young again.")
    ] = 8,
    scans: Annotated[int, typer.Option("--scans", min=4, help="Scans of each cohort to look at.")] = 24,
    simulations: Annotated[
        Path | None,
        typer.Option("--simulations", help="Keep the simulated volumes here; by default in the output."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of all that is random.")] = 0,
) -> None:
    """Measure a model's maps: deletion curves, regions known to have aged, sanity checks, stability.

    Simulated people take about 5 s a volume the first time, some 160 volumes with the defaults; they are kept
    and serve any model. Needs captum: pip install 'brainage\\[faithfulness]'.
    """
    from rich.console import Console

    from brainage.cli.predict import SHIPPED
    from brainage.cli.terminal import logger
    from brainage.files import write_json
    from brainage.models.weights import load_trained
    from brainage.predict.faithfulness import faithfulness_content
    from brainage.report.faithfulness import save_faithfulness_figure
    from brainage.resources import resource
    from brainage.train.cohort import load_cohort

    trained = load_trained(model or resource(SHIPPED))
    cohort = None
    if data is not None:
        found = load_cohort(data, participants, trained.recipe)
        cohort = (found.name, found.scans)
    content = faithfulness_content(
        trained,
        simulations or output / "simulations",
        people,
        min(restored, people),
        cohort,
        scans,
        {_name(path): load_trained(path) for path in other or []},
        seed,
        logger.info,
    )
    write_json(output / "faithfulness.json", content)
    save_faithfulness_figure(output / "faithfulness.png", content)
    console = Console(highlight=False)
    for table in _tables(content):
        console.print(table)
    console.print(f"Everything: {output / 'faithfulness.json'}", soft_wrap=True)


def _name(path: Path) -> str:
    """A model by its folder, since the files of trainings are all called alike."""
    return path.resolve().parent.name if path.stem == "model" else path.stem


def _tables(content: dict[str, Any]) -> list[Table]:
    """The main figures, for people."""
    from rich.table import Table

    truth = Table(title=f"Finding the aged regions of {content['truth']['people']} simulated people")
    for heading in ("method", "read against", "ROC AUC", "95 % interval", "rank correlation with effect"):
        truth.add_column(heading, justify="left" if heading in ("method", "read against") else "right")
    for row in content["truth"]["methods"]:
        low, high = row["auc_ci95"]
        rank = row["rank_correlation"]
        truth.add_row(
            row["method"],
            row["against"],
            f"{row['auc']:.2f}",
            f"{low:.2f} to {high:.2f}",
            "-" if rank is None else f"{rank:.2f}",
        )
    tables = [truth]
    for cohort in content["cohorts"]:
        shown = Table(title=f"Taking regions away: {cohort['scans']} scans of {cohort['name']}")
        for heading in ("order by", "area between insertion and deletion", "seconds a scan"):
            shown.add_column(heading, justify="left" if heading == "order by" else "right")
        for method, row in cohort["deletion"].items():
            seconds = cohort["seconds"].get(method)
            shown.add_row(method, f"{row['gain']:.3f}", "-" if seconds is None else f"{seconds:.2f}")
        tables.append(shown)
    return tables
