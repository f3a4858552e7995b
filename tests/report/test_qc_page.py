import json
import re

import numpy as np
import pytest

from brainage.errors import InputError
from brainage.report.qc_content import (
    QcEntry,
    figures_of,
    in_order,
    mirrored_note,
    read_status,
    strips,
)
from brainage.report.qc_page import write_qc_page

HEADER = "participant_id\tsession_id\tpath\tstatus\tmessage\tseconds\tregistration_ncc\tleft_right\n"
ODD = "<img src=x onerror=alert(1)>"


def entry(name, status="ok", **figures):
    return QcEntry(name, f"{name}_T1w.nii.gz", status, figures=figures)


@pytest.fixture
def page(tmp_path):
    entries = [
        QcEntry(
            "sub-01", "a", "ok", "", {"registration_ncc": 0.61, "left_right": 1.0}, b"jpeg", "p/sub-01.png"
        ),
        QcEntry("sub-02", "b", "warning", "left and right look swapped", {"left_right": -0.8}),
        QcEntry(ODD, "c", "failed", f"found {ODD}", {"odd": 1e-7}),
    ]
    write_qc_page(tmp_path / "page.html", entries, {"registration_ncc": (0.45, None)}, notes=(f"note {ODD}",))
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_what_comes_from_files_is_escaped(page):
    assert ODD not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") == 3


def test_nothing_is_fetched(page):
    assert re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,|p/sub-01\.png")[^"]*"', page) == []
    assert "http" not in re.sub(r"<script>.*</script>", "", page, flags=re.S)


def test_failed_scans_come_first_without_scripts(page):
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    assert [body.index(name) for name in ("&lt;img", "sub-02", "sub-01")] == sorted(
        body.index(name) for name in ("&lt;img", "sub-02", "sub-01")
    )
    assert 'data-value="0.61">0.61<' in body
    assert 'data-value="-0.8">\N{MINUS SIGN}0.80<' in body
    assert "<dt>odd</dt><dd>1e\N{MINUS SIGN}07</dd>" in body
    # A figure that a scan lacks is an empty cell, which sorts last.
    assert 'data-label="registration_ncc"></td>' in body


def test_five_hundred_scans_stay_below_5_mb(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"figure_{i}" for i in range(24)] + ["registration_ncc", "left_right", "cjv", "snr_wm", "efc"]
    entries = [
        QcEntry(
            f"sub-{i:04d}_ses-1",
            f"sub-{i:04d}/ses-1/anat/sub-{i:04d}_ses-1_T1w.nii.gz",
            "warning",
            "the aligned brain hardly resembles the template (registration_ncc 0.4)",
            {name: float(rng.normal()) for name in names},
            rng.bytes(4500),
            f"page_pictures/sub-{i:04d}_ses-1_qc.png",
        )
        for i in range(500)
    ]
    write_qc_page(tmp_path / "page.html", entries, {})
    assert (tmp_path / "page.html").stat().st_size < 5_000_000


def test_a_cohort_of_nothing(tmp_path):
    write_qc_page(tmp_path / "page.html", [], {})
    assert "<b>0</b>" in (tmp_path / "page.html").read_text("utf-8")


def test_order():
    found = in_order([entry("b"), entry("a"), entry("d", "failed"), entry("c", "warning"), entry("e", "new")])
    assert [scan.name for scan in found] == ["d", "e", "c", "a", "b"]


def test_strips_hold_every_value_and_the_good_range():
    entries = [entry(str(i), registration_ncc=value) for i, value in enumerate((0.5, 0.6, 0.7))]
    (strip,) = strips(entries, {"registration_ncc": (0.45, None)})
    assert strip.count == 3
    assert strip.median == 0.6
    assert strip.low < 0.45
    assert strip.band[0] == strip.place(0.45)
    assert strip.band[1] == 100
    places = [strip.place(value) for value, _ in strip.points]
    assert places == sorted(places)
    assert 0 < places[0] < places[-1] < 100


def test_a_strip_of_one_value():
    (strip,) = strips([entry("a", cjv=0.4)], {})
    assert strip.low < 0.4 < strip.high
    assert strip.band == (0, 100)


@pytest.mark.parametrize(
    ("values", "said"), [((-1, -0.5, 1, -1), True), ((1, -1, 1, -1), False), ((-1, -1), False)]
)
def test_a_whole_cohort_that_looks_mirrored(values, said):
    note = mirrored_note([entry(str(i), left_right=value) for i, value in enumerate(values)])
    assert bool(note) == said
    if said:
        assert note.startswith("3 of 4 brains")


def test_the_table_of_a_run(tmp_path):
    (tmp_path / "status.tsv").write_text(
        HEADER
        + "sub-01\tn/a\ta.nii.gz\tok\tn/a\t12\t0.5\t1\nsub-02\tn/a\tb.nii.gz\tfailed\tno\t1\tn/a\tn/a\n"
    )
    first, second = (dict(row) for _, row in read_status(tmp_path).iterrows())
    assert first["message"] == ""
    assert figures_of(first) == {"registration_ncc": 0.5, "left_right": 1.0}
    assert figures_of(second) == {}


@pytest.mark.parametrize("content", [None, "", json.dumps({}), "participant_id\tpath\tstatus\n"])
def test_what_is_no_table_of_a_run(tmp_path, content):
    if content is not None:
        (tmp_path / "status.tsv").write_text(content)
    with pytest.raises(InputError, match="brainage preprocess"):
        read_status(tmp_path)
