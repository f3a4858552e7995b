import numpy as np
import pandas as pd
import pytest

from brainage.anatomy.atlas import load_atlas
from brainage.anatomy.grid import MODEL_GRID


@pytest.fixture(scope="session")
def atlas():
    return load_atlas()


@pytest.fixture(scope="session")
def label_at(atlas):
    """Name of the region at a world position (mm)."""
    names = dict(zip(atlas.regions["index"], atlas.regions["name"], strict=True))

    def look(*xyz):
        voxel = np.rint(np.linalg.inv(MODEL_GRID.affine) @ [*xyz, 1])[:3].astype(int)
        return names.get(atlas.labels[tuple(voxel)], "")

    return look


@pytest.fixture
def written(tmp_path, atlas):
    """Writes a label volume and a table, by default those of the built-in atlas; returns both paths."""
    import nibabel as nib

    def write(labels=None, affine=None, table=None, name="atlas-test_dseg", image=None):
        labels = atlas.labels if labels is None else labels
        affine = MODEL_GRID.affine if affine is None else affine
        table = atlas.regions if table is None else pd.DataFrame(table)
        path, table_path = tmp_path / f"{name}.nii.gz", tmp_path / f"{name}.tsv"
        nib.save(image or nib.Nifti1Image(np.asarray(labels), affine, dtype=labels.dtype), path)
        table.to_csv(table_path, sep="\t", index=False)
        return path, table_path

    return write
