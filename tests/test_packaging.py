"""What a user installs: declared dependencies, the wheel's contents, and the wheel at work by itself."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

# Names that differ between PyPI, conda-forge and `import`.
CONDA = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base", "playwright": "playwright-python"}
IMPORTED = {
    "PIL": "pillow",
    "SimpleITK": "simpleitk",
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "dask_jobqueue": "dask-jobqueue",
}


def name_and_rule(requirement: str) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*(.*)", requirement)
    assert match, requirement
    return match[1], match[2]


@pytest.fixture(scope="module")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_conda_and_pip_users_get_the_same(project, repository):
    environment = yaml.safe_load((repository / "environment.yml").read_text(encoding="utf-8"))
    conda = dict(name_and_rule(line) for line in environment["dependencies"])
    assert conda.pop("python") == project["requires-python"]
    conda.pop("pip")
    wanted = {}
    for requirement in project["dependencies"] + project["optional-dependencies"]["dev"]:
        name, rule = name_and_rule(requirement)
        wanted[CONDA.get(name, name).lower()] = rule
    assert conda == wanted


def test_constraints_hold_what_the_project_allows(project, repository):
    from packaging.requirements import Requirement
    from packaging.version import Version

    allowed = {
        requirement.name.lower(): requirement.specifier
        for requirement in map(Requirement, project["dependencies"] + project["optional-dependencies"]["dev"])
    }
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert "torch" in {requirement.name for requirement in pinned}
    for requirement in pinned:
        for rule in requirement.specifier:
            if rule.operator == "==":
                assert Version(rule.version) in allowed[requirement.name.lower()], requirement


def test_every_import_is_declared(project, repository):
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [
        line for name in ("slurm", "faithfulness", "dicom") for line in extras[name]
    ]
    declared = {name_and_rule(line)[0].lower() for line in lines}
    found = set()
    for path in (repository / "brainage").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    foreign = found - set(sys.stdlib_module_names) - {"brainage"}
    assert {IMPORTED.get(name, name).lower() for name in foreign} <= declared


def test_no_file_names_a_package_index(repository):
    for name in ("constraints.txt", "pyproject.toml", "environment.yml", "Makefile", ".ci/run"):
        assert not re.search(r"https?://", (repository / name).read_text(encoding="utf-8")), name


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=repository, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_recipes_parcellation_and_weights_but_no_tests(wheel, repository):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    for folder in ("pipelines", "atlases"):
        for path in (repository / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"brainage/{path.relative_to(repository).as_posix()}" in names
    assert any(name.startswith("brainage/atlases/") and name.endswith(".nii.gz") for name in names)
    assert "brainage/models/shipped/ermoe_ba.safetensors" in names
    assert "brainage/report/templates/report.html.j2" in names
    assert "brainage/py.typed" in names
    assert not [name for name in names if {"tests", "notebooks"} & set(Path(name).parts)]
    assert wheel.stat().st_size < 40e6


def test_the_wheel_alone_runs_the_whole_path(wheel, tmp_path):
    """Outside the checkout: simulate, preprocess, predict with maps, train, evaluate, page."""
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(site), str(wheel)], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=work,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    assert Path(python("-c", "import brainage; print(brainage.__file__)").strip()).is_relative_to(site)
    program = ["-c", "from brainage.cli.main import run; run()"]
    assert "ermoe" in python(*program, "info").lower()
    said = python(*program, "demo", "out", "--subjects", "2")
    assert "Simulated cohort: MAE" in said
    assert "mean predictor" in said
    page = (work / "out" / "index.html").read_text(encoding="utf-8")
    assert "Simulated data." in page
    assert page.count('class="mosaic"') == 2
    maps = work / "out" / "maps" / "sub-01"
    assert len(list(maps.glob("*_space-T1w_*_map.nii.gz"))) == 3
    assert len(list(maps.glob("*_space-MNI*_desc-shares_map.nii.gz"))) == 2  # on the token grid and at 2 mm
    assert len(list(maps.glob("*_mosaic.png"))) == 1
