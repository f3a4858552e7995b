"""Pages in Chromium: no request leaves them, and without WebGL or JavaScript they are complete."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
files = _PAGES.files
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


@pytest.fixture
def visit(browser: Browser, files: Path) -> Iterator[Callable[..., Page]]:
    """Opens a page; afterwards nothing but the page itself may have been asked for, and no error reported."""
    _PAGES.pages(files, participants=files / "participants.tsv")
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
