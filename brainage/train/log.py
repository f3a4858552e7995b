"""What a training writes down of itself: a table of epochs, and TensorBoard events."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from brainage.files import replacing

logger = logging.getLogger("brainage")

Row = dict[str, float]


class RunLog:
    """``log.csv`` and TensorBoard events of a training in the folder ``out``.

    Rows of the ``finished`` epochs that are there already are kept, those of epochs to be repeated dropped.
    The table is written anew after every epoch, whole or not at all; a figure that only some epochs have gets
    a column with gaps.
    """

    def __init__(self, out: Path, finished: int, epochs: int) -> None:
        self.path, self.epochs = out / "log.csv", epochs
        self.rows: list[dict[str, str]] = []
        if finished and self.path.exists():
            with self.path.open(newline="") as old:
                self.rows = [row for row in csv.DictReader(old) if int(row["epoch"]) <= finished]
        self.board = SummaryWriter(str(out), purge_step=finished + 1)

    def add(self, row: Row) -> None:
        """Write the figures of one more epoch, ``row["epoch"]`` counting from 1."""
        self.rows.append({name: _short(value) for name, value in row.items()})
        columns = list(dict.fromkeys(name for known in self.rows for name in known))
        with replacing(self.path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        for name, value in row.items():
            self.board.add_scalar(name, value, int(row["epoch"]))
        said = ", ".join(f"{name.replace('_', ' ')} {_short(value, 4)}" for name, value in row.items())
        logger.info("%s: %s of %d", self.path.parent.name, said, self.epochs)

    def close(self) -> None:
        """Finish the events file."""
        self.board.close()


def _short(value: float, digits: int = 6) -> str:
    return str(value) if isinstance(value, int) else f"{value:.{digits}g}"
