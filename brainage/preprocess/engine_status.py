"""The table of a run, kept up to date without costing the run its time."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from brainage.preprocess.batch import Row, write_status
from brainage.preprocess.lock import locked_table
from brainage.preprocess.outputs import refuse_unwritable

STATUS = "status.tsv"
# A table that takes less than this to write is written after every scan, s.
_QUICK_S = 0.05
# Else this many times as long as writing took passes until it is written again: a tenth of the time at most.
_PAUSE = 9.0


class StatusTable:
    """``status.tsv`` of an output folder: whole at any moment, replaced as scans end.

    A table of a thousand rows is replaced after every scan. One of a hundred thousand takes seconds to write,
    which after every scan would add up to days; so that one is behind by ten times those seconds at most,
    and by one scan. Nothing depends on it: what is done is told by the sidecars.

    Args:
        out_dir: of the run.
        root: folder that paths are relative to.
        rows: that the table begins with; each has its own ``path``.
    """

    def __init__(self, out_dir: Path, root: Path, rows: Iterable[Row]) -> None:
        self._out_dir, self._root = out_dir, root
        self._rows = {row["path"]: row for row in rows}
        self._cost = self._next = 0.0

    def put(self, row: Row) -> None:
        """Replace a scan's row, and the file if that is due.

        Raises:
            InputError: the file cannot be written.
        """
        self._rows[row["path"]] = row
        if self._cost < _QUICK_S or time.monotonic() >= self._next:
            self.save()

    def save(self, keep_others: bool = True) -> None:
        """Replace the file now.

        Args:
            keep_others: keep the rows that it has about other scans.

        Raises:
            InputError: the file cannot be written.
        """
        start = time.monotonic()
        with refuse_unwritable(self._out_dir), locked_table(self._out_dir):
            write_status(self._out_dir / STATUS, self._rows.values(), self._root, keep_others)
        end = time.monotonic()
        self._cost = end - start
        self._next = end + _PAUSE * self._cost
