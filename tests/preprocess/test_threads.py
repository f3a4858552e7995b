"""The number of threads leaves no trace in the results."""

from __future__ import annotations

import hashlib
import threading

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from brainage.config import PreprocessRecipe
from brainage.data.simulated_scan import simulate_scan
from brainage.preprocess.chain import preprocess_chain
from brainage.preprocess.itk import in_parallel, one_thread

threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads
set_threads = sitk.ProcessObject.SetGlobalDefaultNumberOfThreads


@pytest.fixture(autouse=True)
def _as_before():
    before = threads()
    yield
    set_threads(before)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A simulated brain, every third voxel of it."""
    image = simulate_scan(60, "F", 0, 0).image
    coarse = image.slicer[::3, ::3, ::3]
    path = tmp_path_factory.mktemp("threads") / "sub-01_T1w.nii.gz"
    nib.save(coarse, path)
    return path


def test_a_scan_gives_the_same_bytes_on_one_thread_and_on_eight(scan):
    results = []
    for count in (1, 8):
        set_threads(count)
        data = preprocess_chain(PreprocessRecipe(n4_shrink_mm=6))({"image": scan})
        parts = [data[key].numpy().tobytes() for key in ("image", "brain_mask", "volume")]
        parts.append(np.asarray(data["native_to_mni"]).tobytes())
        results.append([hashlib.sha256(part).hexdigest() for part in parts])
        assert threads() == count
    assert results[0] == results[1]


def test_one_thread_holds_until_the_last_user_is_gone():
    set_threads(4)
    inside, done = threading.Event(), threading.Event()

    def other():
        with one_thread():
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with one_thread():
        assert threads() == 1
    assert threads() == 1
    done.set()
    thread.join()
    assert threads() == 4
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert threads() == 4


@pytest.mark.parametrize("count", [1, 3])
def test_in_parallel_keeps_the_order_and_passes_errors_on(count):
    set_threads(count)
    assert in_parallel(lambda x: x * x, range(7)) == [0, 1, 4, 9, 16, 25, 36]
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda x: 1 / x, [1, 0])
