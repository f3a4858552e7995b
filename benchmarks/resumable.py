"""What the benchmarks of a model that go on where they stopped share: options, and the result so far."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from brainage.models.weights import TrainedModel, load_trained
from brainage.resources import resource


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--model``, ``--json`` and ``--seconds``."""
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1e9)


def start(options: argparse.Namespace, empty: dict[str, Any]) -> tuple[TrainedModel, dict[str, Any], float]:
    """The model, its result as far as the JSON holds one, otherwise ``empty``, and the time to stop at."""
    trained = load_trained(options.model or resource("models/shipped/ermoe_ba.safetensors"))
    result: dict[str, Any] = json.loads(options.json.read_text("utf-8")) if options.json.is_file() else {}
    if result.get("model") != trained.facts["fingerprint"]:
        result = {"model": trained.facts["fingerprint"], **empty}
    return trained, result, time.monotonic() + options.seconds
