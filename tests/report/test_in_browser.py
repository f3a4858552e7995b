"""Pages in Chromium: no request leaves them, the viewer obeys, without it they are complete."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

_SPEC = importlib.util.spec_from_file_location("scan_pages", Path(__file__).with_name("test_scan_page.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
_PAGES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_PAGES)
PATIENCE = 120_000  # ms; WebGL is drawn by the processor here, which other tests share


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as start:
        chromium = start.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = _PAGES.write_files(tmp_path_factory.mktemp("pages"))
    _PAGES.pages(folder, participants=folder / "participants.tsv")
    return folder


@pytest.fixture
def visit(browser: Browser, files: Path) -> Iterator[Callable[..., Page]]:
    """Opens a page; afterwards nothing but the page itself may have been asked for, and no error reported."""
    asked: list[str] = []
    errors: list[str] = []
    opened = []

    def open_page(name: str, before: str = "", **options: Any) -> Page:
        context = browser.new_context(**options)
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
        if before:
            page.add_init_script(before)
        page.goto((files / "out" / f"{name}.html").as_uri(), timeout=PATIENCE)
        return page

    yield open_page
    for context in opened:
        context.close()
    assert errors == []
    assert all(url.startswith(("file://", "blob:", "data:")) for url in asked), asked
    assert sum(url.startswith("file://") for url in asked) == len(opened)


def pixels(page: Page) -> np.ndarray:
    """The canvas as drawn, (H, W, 3)."""
    import io

    from PIL import Image

    shot = page.locator("#gl").screenshot(timeout=PATIENCE)
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def coloured(picture: np.ndarray) -> int:
    """Pixels of the red and blue of contributions; the scan is grey, the cross yellow."""
    red, green, blue = np.moveaxis(picture, -1, 0)
    return int(((np.abs(red - blue) > 25) & ~((red > 180) & (green > 140) & (blue < 130))).sum())


def set_slider(page: Page, name: str, value: float) -> None:
    page.evaluate(
        "([name, value]) => { const s = document.getElementById(name); s.value = value;"
        " s.dispatchEvent(new Event('input')); }",
        [name, value],
    )


def test_the_viewer_draws_and_obeys(visit: Callable[..., Page]) -> None:
    page = visit("sub-2", viewport={"width": 700, "height": 600})
    page.wait_for_selector("#viewer[data-state]")
    assert page.get_attribute("#viewer", "data-state") == "ready", page.inner_text("#place")
    shown = coloured(pixels(page))
    assert shown > 2000
    set_slider(page, "opacity", 0)
    assert coloured(pixels(page)) < 0.1 * shown
    set_slider(page, "opacity", 0.6)
    set_slider(page, "threshold", 0.2)  # the right half has -0.1 years a block
    half = coloured(pixels(page))
    assert 0.2 * shown < half < 0.8 * shown
    said = page.inner_text("#place")
    page.focus("#gl")
    for _ in range(25):
        page.keyboard.press("ArrowLeft")
    moved = page.inner_text("#place")
    assert moved != said
    assert moved.startswith("right insula · \N{MINUS SIGN}0.10 years from this block · expert: free 1 · MNI ")
    page.check("input[value=expert]")
    assert page.is_visible(".legend[data-for=expert]")
    assert not page.is_visible(".legend[data-for=contribution]")


def test_without_webgl_the_page_says_so_and_is_complete(visit: Callable[..., Page]) -> None:
    without = "HTMLCanvasElement.prototype.getContext = () => null;"
    page = visit("sub-2", without)
    page.wait_for_selector("#viewer[data-state=unavailable]")
    assert "WebGL 2" in page.inner_text("#place")
    assert not page.is_visible("#gl")
    assert page.is_visible(".region-table")


def test_without_javascript_everything_is_there(visit: Callable[..., Page]) -> None:
    page = visit("sub-1_ses-2", java_script_enabled=False)
    assert not page.is_visible("#viewer")
    assert page.is_visible(".mosaic")
    assert page.is_visible(".region-table")
    assert page.is_visible(".alarm")
    assert "needs JavaScript" in page.inner_text("main")
    assert visit("index", java_script_enabled=False).locator(".ages tbody tr").count() == 4


def test_the_table_of_the_cohort_sorts(visit: Callable[..., Page]) -> None:
    page = visit("index")

    def order() -> list[str]:
        return page.locator(".ages tbody th").all_inner_texts()

    first = order()
    assert first[0].startswith("sub-<script>")
    assert first[1:] == ["sub-1 ses-2", "sub-1 ses-1", "sub-2"]
    button = page.get_by_role("button", name="Predicted age")
    button.focus()
    page.keyboard.press("Enter")
    assert order() == ["sub-1 ses-1", "sub-1 ses-2", "sub-2", first[0]]
    page.keyboard.press("Enter")
    assert order() == ["sub-2", "sub-1 ses-2", "sub-1 ses-1", first[0]]


@pytest.mark.parametrize("name", ["sub-2", "sub-1_sessions", "index"])
def test_nothing_sticks_out_on_a_phone(visit: Callable[..., Page], name: str) -> None:
    page = visit(name, viewport={"width": 375, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_it_prints_on_a4_without_the_viewer(visit: Callable[..., Page]) -> None:
    page = visit("sub-2")
    page.wait_for_selector("#viewer[data-state]")
    page.emulate_media(media="print")
    assert not page.is_visible("#viewer")
    pdf = page.pdf(prefer_css_page_size=True)
    # Sizes are in points: A4 is 595 x 842.
    assert b"/MediaBox [0 0 594.95996 841.91998]" in pdf or b"/MediaBox [0 0 595" in pdf
    assert 2 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 5


def test_a_page_from_hostile_files_shows_their_text(visit: Callable[..., Page]) -> None:
    # A dialog, which the scripts in these names would open, is an error of the fixture.
    failed = visit("sub--script-alert-1-script")
    assert _PAGES.EVIL in failed.inner_text("h1")
    assert f"no volume in {_PAGES.EVIL}" in failed.inner_text(".alarm")
    assert f"bad{_PAGES.EVIL[:8]}.nii.gz" in failed.inner_text("main")
    shown = visit("sub-2", java_script_enabled=False)
    assert _PAGES.EVIL in shown.inner_text(".region-table")
    assert _PAGES.EVIL in visit("index").inner_text(".ages")


def test_the_keyboard_reaches_everything(visit: Callable[..., Page]) -> None:
    page = visit("sub-2")
    page.wait_for_selector("#viewer[data-state]")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.name || ''"))
    assert {"map", "view", "opacity", "threshold", "gl"} <= set(reached)
    page.focus("#opacity")
    before = page.inner_text("#opacity-value")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#opacity-value") != before
    page.focus("input[name=map]:checked")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.querySelector('input[name=map]:checked').value") == "expert"


PAGE_NAMES = ["sub-2", "sub-1_ses-2", "sub--script-alert-1-script", "sub-1_sessions", "index"]

# Ratio of text to what lies behind it, WCAG 2.2, 1.4.3; nothing in these pages lies on a picture.
CONTRAST = """() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number);
    return n.length < 4 ? [...n, 1] : n; };
  const light = (rgb) => { const [r, g, b] = rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (element) => { for (let at = element; at; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor); if (colour[3] === 1) { return colour; } }
    return [255, 255, 255, 1]; };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) { continue; }
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const ink = parse(element.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (a + 0.05) / (b + 0.05), words = walker.currentNode.textContent.trim();
    if (ratio < (large ? 3 : 4.5)) { found.push([words.slice(0, 40), ratio]); }
  }
  return found;
}"""


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_all_text_stands_out_and_landmarks_are_there(visit: Callable[..., Page], name: str) -> None:
    page = visit(name)
    assert page.evaluate(CONTRAST) == []
    assert [page.locator(tag).count() for tag in ("header", "main", "footer", "h1")] == [1, 1, 1, 1]
    assert all(picture.get_attribute("alt") for picture in page.locator("img").all())


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_axe_finds_nothing(visit: Callable[..., Page], name: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = visit(name)
    found = axe.Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]})
    told = [
        (one["id"], [node["html"][:160] for node in one["nodes"]]) for one in found.response["violations"]
    ]
    assert told == []
