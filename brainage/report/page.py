"""What all pages share: the templates, how numbers are written, and how pictures travel inside a page."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from brainage import __version__
from brainage.files import replacing

_QUALITY = 88  # of a mosaic as WebP; its lettering stays clean and it takes a quarter of the PNG


def render_page(path: Path, template: str, **content: Any) -> None:
    """Write a page from a template of this package, which escapes all text."""
    today = datetime.now(UTC).date().isoformat()
    page = _environment().get_template(template).render(version=__version__, today=today, **content)
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")


def data_uri(image: bytes, kind: str = "png") -> str:
    """An image as an address that needs no file."""
    return f"data:image/{kind};base64," + base64.b64encode(image).decode("ascii")


def mosaic_uri(png: Path, width: int | None = None, quality: int = _QUALITY) -> str:
    """A PNG as WebP inside the page, at most ``width`` pixels wide."""
    with Image.open(png) as image:
        picture = image.convert("RGB")
    if width is not None and picture.width > width:
        picture = picture.resize((width, max(1, round(picture.height * width / picture.width))))
    file = io.BytesIO()
    picture.save(file, "webp", quality=quality, method=4)
    return data_uri(file.getvalue(), "webp")


def signed(value: float | None, digits: int = 1) -> str:
    """``+1.5``, with a true minus sign and without a negative zero."""
    if value is None:
        return "\N{EN DASH}"
    text = f"{abs(value):.{digits}f}"
    sign = "" if float(text) == 0 else "+" if value > 0 else "\N{MINUS SIGN}"
    return sign + text


def percent(value: float) -> str:
    """``93 %``; beyond what some hundred people can tell apart, only that it is beyond."""
    return "more than 99 %" if value > 99 else "less than 1 %" if value < 1 else f"{value:.0f} %"


def short_percent(value: float) -> str:
    """:func:`percent` for a table: ``> 99 %``."""
    return percent(value).replace("more than", ">").replace("less than", "<")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("brainage.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = lambda png: data_uri(Path(png).read_bytes())
    environment.filters["mosaic_uri"] = mosaic_uri
    environment.filters["years"] = lambda value: "\N{EN DASH}" if value is None else f"{value:.1f}"
    environment.filters["whole"] = lambda value: f"{value:.0f}".replace("-", "\N{MINUS SIGN}")
    environment.filters["signed"] = signed
    environment.filters["percent"] = percent
    environment.filters["short_percent"] = short_percent
    return environment
