"""Build the map by which a brain is told from its mirror image, and say how well it does.

    python atlases/asymmetry/build.py PRE [--out FOLDER] [--json FILE]

PRE is the folder of ``brainage preprocess`` over a cohort. The map is ridge regression of +1 on what is left
of each brain (block means of the normalised volume) after its mirror image is taken away, without intercept:
it is of opposite sign at mirrored places. Scores are of subjects that were left out, in five folds, divided
by their mean. Brains that look mirrored to the rest may be stored so, and would blur the map: they are left
out of a second round, and named.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from brainage.anatomy.grid import MODEL_GRID
from brainage.files import replacing, write_json
from brainage.preprocess.outputs import find_preprocessed, read_preprocessed
from brainage.preprocess.quality_mirror import BLOCK, MAP_FILE, block_means

RIDGE = 1.0  # of the kernel's mean diagonal
FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pre", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    scans = [read_preprocessed(path) for path in find_preprocessed(options.pre)]
    names = np.array([scan.participant_id for scan in scans])
    means = np.stack([block_means(scan.volume()) for scan in scans])
    differences = ((means - means[:, ::-1]) / 2).reshape(len(means), -1)
    _, subjects = np.unique(names, return_inverse=True)
    folds = np.random.default_rng(0).permutation(subjects.max() + 1)[subjects] % FOLDS
    first = left_out(differences, folds)
    mirrored = first < 0
    second = left_out(differences[~mirrored], folds[~mirrored])
    scale = second.mean()
    final = weights(differences[~mirrored]) / scale
    image = nib.Nifti1Image(
        final.reshape(means.shape[1:]).astype(np.float32), MODEL_GRID.coarsen(BLOCK).affine
    )
    image.set_sform(image.affine, "mni")
    image.set_qform(image.affine, "mni")
    image.header.set_xyzt_units("mm")
    with replacing(options.out / Path(MAP_FILE).name) as partial:
        # Without a time stamp, so that the same input gives the same bytes.
        partial.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
    figures = {
        "scans": len(scans),
        "first_round": _spread(first / first.mean()),
        "look_mirrored": {
            str(name): round(float(score), 2)
            for name, score in zip(names[mirrored], differences[mirrored] @ final, strict=True)
        },
        "second_round": _spread(second / scale),
    }
    if options.json:
        write_json(options.json, figures)
    parser.exit(0, f"{figures}\n")


def weights(differences: np.ndarray) -> np.ndarray:
    """(P,) ridge solution of ``differences @ weights = 1`` for (N, P), through the (N, N) kernel."""
    kernel = differences @ differences.T
    ridge = RIDGE * np.trace(kernel) / len(kernel)
    return differences.T @ np.linalg.solve(kernel + ridge * np.eye(len(kernel)), np.ones(len(kernel)))


def left_out(differences: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(N,) scores of subjects by maps that were made without them."""
    scores = np.empty(len(differences))
    for fold in np.unique(folds):
        out = folds == fold
        scores[out] = differences[out] @ weights(differences[~out])
    return scores


def _spread(scores: np.ndarray) -> dict[str, float]:
    low = {f"quantile_{q:g}": float(np.quantile(scores, q)) for q in (0, 0.01, 0.05, 0.5, 0.95, 1)}
    return {"right_sign": float((scores > 0).mean()), "std": float(scores.std()), **low}


if __name__ == "__main__":
    main()
