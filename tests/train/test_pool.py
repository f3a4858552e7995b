"""Processes that work side by side end with the one that started them."""

from __future__ import annotations

from collections.abc import Callable

PROGRAM = """
import os, sys, time
from pathlib import Path
from brainage.train.pool import in_processes

def work(folder, number):
    (Path(folder) / f"{number}-{os.getpid()}").touch()
    while True:
        sum(range(1000))

if __name__ == "__main__":
    list(in_processes(work, [(sys.argv[1], number) for number in range(3)], 2))
"""


def test_workers_end_with_a_parent_that_is_killed(killed_at_work: Callable[[str, int], list[int]]) -> None:
    assert killed_at_work(PROGRAM, 2) == []
