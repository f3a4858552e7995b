"""``brainage info``: what is installed, where it would run, and which model is shipped."""

from __future__ import annotations

_LIBRARIES = (
    "torch",
    "monai",
    "nibabel",
    "nilearn",
    "SimpleITK",
    "numpy",
    "pandas",
    "scikit-learn",
    "lightning",
)


def info() -> None:
    """Versions, devices and the shipped model, for a bug report or a methods section."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from rich.console import Console
    from rich.table import Table

    from brainage import __version__

    table = Table(show_header=False, box=None)
    table.add_row("brainage", __version__)
    table.add_row("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _LIBRARIES:
        try:
            table.add_row(name, version(name))
        except PackageNotFoundError:
            table.add_row(name, "not installed")
    table.add_row("devices", _devices())
    for name, value in _shipped_model():
        table.add_row(name, value)
    console = Console(highlight=False)
    console.print(table)


def _devices() -> str:
    import os

    import torch

    devices = [f"cpu ({os.cpu_count()} cores, {torch.get_num_threads()} threads)"]
    devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return ", ".join(devices)


def _shipped_model() -> list[tuple[str, str]]:
    from brainage.cli.predict import SHIPPED
    from brainage.models.weights import load_trained
    from brainage.resources import resource

    try:
        facts = load_trained(resource(SHIPPED)).facts
    except FileNotFoundError:
        return [("model", "none in this installation")]
    low, high = facts["age_range"]
    return [
        ("model", f"{facts['name']}, fingerprint {facts['fingerprint']}"),
        ("  trained on", f"{facts['num_subjects']} subjects, {low:g} to {high:g} years"),
        ("  preprocessing", facts["preprocessing_fingerprint"]),
    ]
