"""How often the table of a run is written."""

from __future__ import annotations

import pytest

from brainage.data.cohort import scan_of
from brainage.preprocess import engine_status
from brainage.preprocess.batch import waiting_row
from brainage.preprocess.engine_status import StatusTable


class Clock:
    """Each write takes ``cost`` seconds; nothing else takes any."""

    def __init__(self, cost):
        self.now, self.cost, self.writes = 100.0, cost, []

    def monotonic(self):
        return self.now

    def write(self, path, rows, root, keep_others):
        self.writes.append([row["status"] for row in rows])
        self.now += self.cost


@pytest.fixture
def table_and_clock(tmp_path, monkeypatch):
    def make(cost):
        clock = Clock(cost)
        monkeypatch.setattr(engine_status, "time", clock)
        monkeypatch.setattr(engine_status, "write_status", clock.write)
        (tmp_path / ".brainage").mkdir()
        rows = [waiting_row(scan_of(tmp_path / f"sub-{index:04d}_T1w.nii.gz")) for index in range(1000)]
        return StatusTable(tmp_path, tmp_path, rows), clock, rows

    return make


def test_a_small_table_is_written_after_every_scan(table_and_clock):
    table, clock, rows = table_and_clock(cost=0.01)
    table.save()
    for count in range(5):
        table.put(rows[count] | {"status": "ok"})
        assert clock.writes[-1].count("ok") == count + 1
    assert len(clock.writes) == 6


def test_a_large_table_takes_a_tenth_of_the_time_and_falls_behind_by_no_more_than_that(table_and_clock):
    table, clock, rows = table_and_clock(cost=2.0)
    table.save()
    for row in rows:
        clock.now += 0.5
        table.put(row | {"status": "ok"})
    spent = 2.0 * len(clock.writes)
    assert 0.08 * (clock.now - 100) < spent < 0.101 * (clock.now - 100)
    # 18 seconds of pause hold 36 scans.
    behind = [
        after.count("ok") - before.count("ok")
        for before, after in zip(clock.writes, clock.writes[1:], strict=False)
    ]
    assert max(behind) <= 37
    table.save()
    assert clock.writes[-1] == ["ok"] * 1000
