"""One run at a time on an output folder. A lock dies with its process, however that ends."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from brainage.errors import InputError
from brainage.preprocess.outputs import refuse_unwritable

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger("brainage")

FOLDER = ".brainage"


class HeldError(InputError):
    """Another run is at work on the folder."""


@contextmanager
def locked(out_dir: Path, participants: Sequence[str] = ()) -> Iterator[None]:
    """Hold an output folder, or those participants of it, for as long as the block runs.

    Runs on different participants may share a folder (a job array of a cluster, one a participant); a run
    on all of them is alone. The locks are the kernel's (``flock``), held by the open file: they end with
    the process, so that a killed run leaves nothing to clear away, also where the file stays.

    Args:
        out_dir: of the run; made if it is not there.
        participants: with their prefix; all where empty.

    Raises:
        HeldError: another run holds it.
        InputError: it cannot be written.
    """
    with ExitStack() as stack:
        with refuse_unwritable(out_dir):
            folder = out_dir / FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            names = ["run", *sorted(set(participants))]
            files = [stack.enter_context((folder / f"{name}.lock").open("a+")) for name in names]
        if fcntl is None:
            logger.warning("This system has no file locks: start no second run on %s", out_dir.name)
        else:
            for file in files:
                shared = bool(participants) and file is files[0]
                _take(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, out_dir)
        yield


@contextmanager
def locked_table(out_dir: Path) -> Iterator[None]:
    """Hold the folder's ``status.tsv`` for the moment of a change; waits for others."""
    with (out_dir / FOLDER / "status.lock").open("a+") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                logger.debug("No lock on status.tsv", exc_info=True)
        yield


def _take(file: Any, kind: int, out_dir: Path) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise HeldError(
            out_dir,
            f"another run at work on it ({file.read(200).strip() or 'started just now'})",
            "one run at a time on an output folder",
            "wait for it, or give another folder",
        ) from error
    except OSError as error:
        # Some network file systems know no locks; refusing to work there would help nobody.
        logger.warning("%s cannot be locked (%s): start no second run on it", out_dir.name, error.strerror)
        return
    if kind == fcntl.LOCK_EX:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
