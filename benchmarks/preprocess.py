"""Seconds of each stage of preprocessing, and of what SimpleITK and antspyx offer for the same.

    python benchmarks/preprocess.py --scan ../shared/data/whole_head/sub-LH01/anat/sub-LH01_T1w.nii.gz \
        --json docs/results/preprocess.json

The scan is resampled to 1 mm first, so that it stands for a common head. Every round is a fresh process that
runs the whole chain from the file on, once on one ITK thread and once on ``--threads``: import, stages, peak
memory. Then the contestants of each step take turns on the same image, ``--rounds`` times. Medians are shown,
of the clock and of processor time, which other work on the machine disturbs less. antspyx is no dependency:
it takes part if it is installed (``pip install antspyx``, or its folder on ``PYTHONPATH``).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Timing = tuple[float, float]  # of the clock, of the processor
STEPS = {
    "n4": "N4 (evenness of white matter, less is better)",
    "affine": "affine (likeness to the template, more is better)",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", type=Path, required=True, help="head with skull")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("chain", *STEPS), default=None, help="one part; all by default")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--chain", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.chain:
        sys.stdout.write(json.dumps(_chain(options.scan)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        scan = _at_1_mm(options.scan, Path(scratch, "sub-1mm_T1w.nii.gz"))
        if options.only in ("chain", None):
            chain = _chain_in_processes(scan, (1, options.threads), options.rounds)
            _show_chain(chain)
            _keep(options.json, "chain", chain, options.rounds)
        steps = [step for step in STEPS if options.only in (step, None)]
        if steps:
            found = _contestants(scan, options.threads, options.rounds, steps)
            _show_steps(found)
            for step, result in found.items():
                _keep(options.json, step, result, options.rounds)


def _keep(path: Path | None, part: str, result: dict[str, Any], rounds: int) -> None:
    """Write a part into the JSON, beside the other part."""
    from brainage.files import write_json

    if path is None:
        return
    about = {"cores": os.cpu_count(), "load_average": os.getloadavg()[0], "rounds": rounds}
    before = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    write_json(path, before | {part: {"about": about, **result}})


def _at_1_mm(path: Path, out: Path) -> Path:
    import nibabel as nib
    from nibabel.processing import resample_to_output

    fine = resample_to_output(nib.as_closest_canonical(nib.load(path)), (1, 1, 1), order=1)
    image = nib.Nifti1Image(np.asarray(fine.dataobj).astype(np.int16), fine.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(fine.affine, 1)
    image.set_qform(fine.affine, 1)
    nib.save(image, out)
    return out


def _chain(scan: Path) -> dict[str, Any]:
    """The whole chain in this process, imports first."""
    start = _now()
    from brainage.config import PreprocessRecipe
    from brainage.preprocess.chain import preprocess_chain

    stages = {"import": _since(start)}
    data: dict[str, Any] = {"image": scan}
    for transform in preprocess_chain(PreprocessRecipe()).transforms:
        start = _now()
        data = transform(data)
        name = type(transform).__name__ + (", in the mask" if getattr(transform, "mask_key", None) else "")
        stages[name] = _since(start)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"stages": stages, "peak_gb": peak_gb, "shape": list(data["native_shape"])}


def _chain_in_processes(scan: Path, threads: tuple[int, ...], rounds: int) -> dict[str, Any]:
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in threads}
    for _ in range(rounds):
        for count in threads:
            numbers = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(count), "OMP_NUM_THREADS": str(count)}
            command = [sys.executable, __file__, "--chain", "--scan", str(scan)]
            done = subprocess.run(command, env=os.environ | numbers, capture_output=True, check=True)
            runs[count].append(json.loads(done.stdout))
    return {
        str(count): {
            "stages": {
                name: _median([tuple(run["stages"][name]) for run in several])
                for name in several[0]["stages"]
            },
            "total": _median(
                [tuple(np.sum(list(run["stages"].values()), axis=0).tolist()) for run in several]
            ),
            "peak_gb": max(run["peak_gb"] for run in several),
            "shape": several[0]["shape"],
        }
        for count, several in runs.items()
    }


def _contestants(scan: Path, threads: int, rounds: int, wanted: list[str]) -> dict[str, dict[str, Any]]:
    """Each wanted step's contestants in turn; beside the seconds, how good the result is."""
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
    import SimpleITK as sitk

    from brainage.preprocess.brain_extraction import BrainExtractiond
    from brainage.preprocess.itk import image_from_tensor, matrix_of
    from brainage.preprocess.load import LoadScand
    from brainage.preprocess.n4 import N4BiasCorrectiond
    from brainage.preprocess.registration import likeness, register_affine
    from brainage.preprocess.template import template_brain

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    try:
        import ants
    except ImportError:
        ants = None
    loaded = LoadScand()({"image": scan})
    stripped = BrainExtractiond("always")(N4BiasCorrectiond()(loaded))
    head, mask = image_from_tensor(loaded["image"]), image_from_tensor(stripped["brain_mask"])
    brain = sitk.Cast(
        image_from_tensor(stripped["image"]) * sitk.Cast(mask, sitk.sitkFloat32), sitk.sitkFloat32
    )
    template, inside = template_brain(), sitk.GetArrayViewFromImage(mask) > 0

    def evenness(corrected: np.ndarray) -> float:
        """Coefficient of variation of the brighter half of the brain, mostly white matter."""
        values = corrected[inside]
        white = values[values > np.median(values)]
        return float(white.std() / white.mean())

    def uncorrected() -> float:
        return evenness(sitk.GetArrayViewFromImage(head))

    def first_n4() -> float:
        return evenness(N4BiasCorrectiond()(loaded)["image"][0].numpy().transpose(2, 1, 0))

    def both_n4() -> float:
        """The chain's two fits; the brain mask, which it finds between them, is there already."""
        known = {key: stripped[key] for key in ("brain_mask", "stripped")}
        twice = N4BiasCorrectiond(mask_key="brain_mask")(N4BiasCorrectiond()(loaded) | known)
        return evenness(twice["image"][0].numpy().transpose(2, 1, 0))

    def plain_n4() -> float:
        coarse = sitk.Shrink(head, [4, 4, 4])
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.Execute(coarse, sitk.OtsuThreshold(coarse, 0, 1, 200))
        field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(head))
        return evenness(sitk.GetArrayViewFromImage(head) / np.exp(field))

    def ants_n4() -> float:
        return evenness(ants.n4_bias_field_correction(to_ants(head)).numpy().transpose(2, 1, 0))

    def ours_affine() -> float:
        return register_affine(brain)[1]

    def plain_affine() -> float:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(32)
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(0.25, seed=1)
        method.SetOptimizerAsGradientDescent(1.0, 100, 1e-6, 10)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel((4, 2, 1))
        method.SetSmoothingSigmasPerLevel((4, 2, 0))
        method.SetInitialTransform(
            sitk.CenteredTransformInitializer(
                template, brain, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS
            )
        )
        found = sitk.AffineTransform(method.Execute(template, brain))
        return likeness(brain, np.linalg.inv(matrix_of(found)))

    def ants_affine() -> float:
        found = ants.registration(to_ants(template), to_ants(brain), type_of_transform="Affine")
        transform = sitk.ReadTransform(found["fwdtransforms"][0])
        return likeness(brain, np.linalg.inv(matrix_of(transform)))

    def to_ants(image: sitk.Image) -> Any:
        array = sitk.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.float32)
        direction = np.array(image.GetDirection()).reshape(3, 3)
        return ants.from_numpy(array, image.GetOrigin(), image.GetSpacing(), direction)

    none = "antspyx is not installed"
    absent: dict[str, Callable[[], float] | str] = {"antspyx": none}
    steps: dict[str, dict[str, Callable[[], float] | str]] = {
        "n4": {
            "brainage": both_n4,
            "brainage, the first of its two fits": first_n4,
            "no correction": uncorrected,
            "SimpleITK, shrunk by 4, else defaults": plain_n4,
            **({"antspyx, defaults": ants_n4} if ants else absent),
        },
        "affine": {
            "brainage": ours_affine,
            "SimpleITK, moments, 3 levels": plain_affine,
            **({"antspyx, defaults": ants_affine} if ants else absent),
        },
    }
    return {step: _take_turns(steps[step], rounds) for step in wanted}


def _take_turns(contestants: dict[str, Callable[[], float] | str], rounds: int) -> dict[str, Any]:
    times: dict[str, list[Timing]] = {name: [] for name in contestants}
    results: dict[str, Any] = {}
    for number in range(rounds):
        for name, run in contestants.items():
            if isinstance(run, str):
                results[name] = {"skipped": run}
                continue
            if number == 0 and name == "brainage":
                run()  # what is loaded once is not counted
            start = _now()
            quality = run()
            times[name].append(_since(start))
            results[name] = {"quality": quality}
    for name, several in times.items():
        if several:
            results[name]["seconds"] = _median(several)
    return results


def _now() -> Timing:
    return time.perf_counter(), time.process_time()


def _since(start: Timing) -> Timing:
    now = _now()
    return now[0] - start[0], now[1] - start[1]


def _median(timings: list[Timing]) -> list[float]:
    return [round(float(value), 3) for value in np.median(timings, axis=0)]


def _show_chain(chain: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=130)
    shape = " x ".join(map(str, next(iter(chain.values()))["shape"]))
    table = Table(title=f"Whole head, 1 mm, {shape} voxels: seconds of the clock (of the processor)")
    table.add_column("stage")
    for count in chain:
        table.add_column(f"{count} threads", justify="right")
    for name in next(iter(chain.values()))["stages"]:
        table.add_row(name, *(_both(result["stages"][name]) for result in chain.values()))
    table.add_row("total", *(_both(result["total"]) for result in chain.values()))
    table.add_row("peak memory, GB", *(f"{result['peak_gb']:.2f}" for result in chain.values()))
    console.print(table)


def _show_steps(steps: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("step", "contestant", "seconds", "of brainage's", "quality")
    for step, contestants in steps.items():
        title, own = STEPS[step], contestants["brainage"]["seconds"]
        for name, result in contestants.items():
            if "skipped" in result:
                table.add_row(title, name, result["skipped"], "", "")
                continue
            ratio = f"{result['seconds'][0] / own[0]:.1f} ({result['seconds'][1] / own[1]:.1f})"
            table.add_row(title, name, _both(result["seconds"]), ratio, f"{result['quality']:.3f}")
    Console(width=130).print(table)


def _both(seconds: list[float]) -> str:
    return f"{seconds[0]:.1f} ({seconds[1]:.1f})"


if __name__ == "__main__":
    main()
