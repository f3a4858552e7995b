import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.image import imsave
from typer.testing import CliRunner

from brainage.cli.main import app
from brainage.errors import InputError
from brainage.report.html import Section, write_report

VOID = {"meta", "img", "br", "input", "line", "rect", "circle", "path"}


class Page(HTMLParser):
    """Element counts, attributes and text of a page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.words = " ".join(self.words.split())
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words += " " + data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def png(value: float) -> bytes:
    file = io.BytesIO()
    imsave(file, np.full((4, 6), value), vmin=0, vmax=1, format="png")
    return file.getvalue()


@pytest.fixture
def files(tmp_path):
    (tmp_path / "ages.csv").write_text(
        "participant_id,session_id,path,predicted_age,status,message,interval_low,interval_high,"
        "registration_ncc,model,preprocessing_fingerprint\n"
        "sub-01,ses-1,sub-01_ses-1_T1w.nii.gz,31.26,ok,,20.1,42.5,0.91234567,ermoe-ba 1,abc\n"
        "sub-02,,sub-02_run-1_T1w.nii.gz,64.0,warning,older than the rest,50,80,0.9,ermoe-ba 1,abc\n"
        "sub-02,,sub-02_run-2_T1w.nii.gz,62.0,ok,,50,80,0.9,ermoe-ba 1,abc\n"
        "sub-03,,bad.nii.gz,,failed,<script>alert(1)</script>,,,,,\n"
    )
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\tsex\nsub-01\t30\tF\nsub-02\t70\tM\nsub-03\t45\tF\n"
    )
    rows = "region\themisphere\tgroup\tcontribution_years\tcoverage\n" + "".join(
        f"region_{i} {'LR'[i % 2]}\t{'LR'[i % 2]}\tfrontal\t{(-1) ** i * i / 10}\t1\n" for i in range(1, 13)
    )
    for folder, prefix, value in (
        ("sub-01_ses-1", "sub-01_ses-1", 0.1),
        ("sub-02", "sub-02_run-1", 0.5),
        ("sub-02", "sub-02_run-2", 0.9),
    ):
        (tmp_path / "maps" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "maps" / folder / f"{prefix}_mosaic.png").write_bytes(png(value))
        (tmp_path / "maps" / folder / f"{prefix}_regions.tsv").write_text(rows)
    return tmp_path


def write(files, **options):
    write_report(files / "page.html", files / "ages.csv", **options)
    return (files / "page.html").read_text(encoding="utf-8")


def everything(files, **options):
    return write(files, participants=files / "participants.tsv", maps=files / "maps", **options)


def test_the_page_needs_nothing_but_itself(files):
    page = Page(everything(files))
    assert page.all("link") == page.all("iframe") == []
    assert not any("src" in script for script in page.all("script"))
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")
    sources = [image["src"] for image in page.all("img")]
    assert len(sources) == 4  # the scatter and three mosaics
    assert all(source.startswith(("data:image/png;base64,", "data:image/webp;base64,")) for source in sources)
    text = (files / "page.html").read_text("utf-8")
    assert not re.search(r"https?://|url\(|@import", text)


def test_it_can_be_read_without_seeing_it(files):
    page = Page(everything(files))
    assert page.all("html")[0]["lang"] == "en"
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    assert all("scope" in cell for cell in page.all("th"))


def test_every_scan_has_its_row_with_interval_gap_and_message(files):
    words = Page(everything(files)).words
    assert "4 scans: 2 without remark, 1 with a warning, 1 without a prediction." in words.replace(
        " s:", "s:"
    )
    assert "31.3 (20.1 to 42.5) 30.0 +1.3" in words
    assert "64.0 (50.0 to 80.0) 70.0 \N{MINUS SIGN}6.0" in words
    assert "older than the rest" in words
    assert "registration ncc 0.9123" in words
    assert "ermoe-ba 1" in words
    assert "Not a medical device" in words


def test_text_from_files_is_escaped(files):
    text = everything(files, title="<b>A & B</b>")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "&lt;b&gt;A &amp; B&lt;/b&gt;" in text


def test_each_run_gets_its_own_images(files):
    sources = [image["src"] for image in Page(everything(files)).all("img")]
    assert len(set(sources)) == 4


def test_regions_are_sorted_by_size_and_their_sum_is_given(files):
    words = Page(everything(files)).words
    first, second = words.index("region 12 left +1.20"), words.index("region 11 right \N{MINUS SIGN}1.10")
    assert first < second
    assert "12 regions together: +0.60 years." in words  # (2 + 4 + ... + 12 - 1 - 3 - ... - 11) / 10


def test_simulated_is_said_in_title_banner_and_with_each_scan(files):
    text = everything(files, simulated=True)
    page = Page(text)
    assert "(simulated)</title>" in text
    assert "Simulated data." in page.words
    assert page.words.count(" simulated") >= 4
    assert all("simulated" in image["alt"] for image in page.all("img"))
    assert "simulated" not in Page(everything(files)).words


def test_without_true_ages_or_maps_it_only_lists(files):
    page = Page(write(files))
    assert page.all("img") == []
    assert "Chronological age" not in page.words
    assert "31.3" in page.words


def test_a_large_cohort_shows_some_and_says_how_many_it_leaves_out(files):
    page = Page(everything(files, mosaics_at_most=1))
    assert len(page.all("img")) == 2
    assert "2 more scans have images" in page.words


def test_further_sections(files):
    (files / "curve.png").write_bytes(png(0.3))
    section = Section(
        "Training a tiny model",
        ("It learns little.",),
        ("epoch", "loss"),
        (("0", "3.1"), ("1", "2.9")),
        files / "curve.png",
        "Loss by epoch, falling from 3.1 to 2.9.",
    )
    words = Page(everything(files, sections=[section])).words
    assert "Training a tiny model It learns little. epoch loss 0 3.1 1 2.9" in words


def test_a_region_table_of_another_kind_is_refused(files):
    (files / "maps" / "sub-02" / "sub-02_run-1_regions.tsv").write_text("name\tx\na\t1\n")
    with pytest.raises(InputError, match="no column region"):
        everything(files)
    assert not (files / "page.html").exists()


def test_the_command_writes_the_page_and_names_it(files):
    page = files / "out" / "report.html"
    result = CliRunner().invoke(
        app, ["report", str(files / "ages.csv"), "-o", str(page), "--maps", str(files / "maps")]
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(page)
    assert page.is_file()


def test_ages_of_the_ages_file_count_where_no_participants_are_given(files):
    path = files / "ages.csv"
    head, first, *rest = path.read_text("utf-8").splitlines()
    lines = [f"{head},age,gap,bias_slope", f"{first},30,1.26,0.93", *(f"{line},,," for line in rest)]
    path.write_text("\n".join(lines))
    page = write(files)
    assert "+1.3" in page
    assert "bias slope" not in page
    assert "0.93" not in page


def test_a_list_of_scans_is_predicted_and_keeps_its_ages(files, monkeypatch):
    asked = {}

    def predict(scans, output, **options):
        asked.update(scans=scans, **options)
        output.parent.mkdir()
        output.write_bytes((files / "ages.csv").read_bytes())

    monkeypatch.setattr("brainage.cli.predict.predict", predict)
    (files / "list.csv").write_text("path,id,age\nx.nii,01,30\n")
    out = files / "out"
    options = ["-o", str(out), "--participants", str(files / "participants.tsv")]
    result = CliRunner().invoke(app, ["report", str(files / "list.csv"), *options])
    assert result.exit_code == 0, result.output
    assert asked["scans"] == [files / "list.csv"]
    assert asked["participants"] == files / "participants.tsv"
    assert (out / "index.html").is_file()


def test_a_table_of_simulated_scans_says_so(files):
    for name, said in (("made", "Simulated brains"), ("real", "Heads")):
        (files / name / "sub-1").mkdir(parents=True)
        (files / name / "dataset_description.json").write_text(json.dumps({"Name": said}))
        rows = f"sub-1,{files}/made/sub-1/a.nii,40\nsub-2,{files}/{name}/b.nii,50\n"
        (files / f"{name}.csv").write_text(f"participant_id,path,predicted_age\n{rows}")
        page = files / f"{name}.html"
        result = CliRunner().invoke(app, ["report", str(files / f"{name}.csv"), "-o", str(page)])
        assert result.exit_code == 0, result.output
        assert ("Simulated data" in page.read_text("utf-8")) == (name == "made")
