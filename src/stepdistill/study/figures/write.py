"""Figures into files: the same figure gives the same bytes, and its SVG can stand in a page with others."""

from __future__ import annotations

import io
import re
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from PIL import Image

from stepdistill.files import replacing, write_text
from stepdistill.study.figures.figure import Drawn, Figure
from stepdistill.study.figures.frame import settle
from stepdistill.study.figures.style import DPI, house_style

_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(url\(#|href="#)')
_HEAD = re.compile(r"\A.*?(?=<svg )", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_OPENING = re.compile(r"<svg ([^>]*)>")


@house_style
def write(figure: Figure, folder: Path) -> Drawn:
    """Write `NAME.svg` and `NAME.png` into `folder`, each in one step.

    The SVG has no prologue, so it can be pasted into HTML. All its ids begin with the figure's name, its
    style sheet reaches nothing else, and it carries the title and the alternative text.

    Raises:
        RunFolderError: the disk is full or not writable.
    """
    svg, png = folder / f"{figure.name}.svg", folder / f"{figure.name}.png"
    words, pixels = io.StringIO(), io.BytesIO()
    # `savefig` would draw everything twice for each file.
    settle(figure.picture)
    FigureCanvasSVG(figure.picture).print_svg(words, metadata={"Date": None, "Creator": None})
    figure.picture.set_dpi(DPI)
    drawn = FigureCanvasAgg(figure.picture)
    drawn.draw()
    # Flat colours: a palette of 256 shows them all in a third of the bytes.
    image = Image.fromarray(np.asarray(drawn.buffer_rgba())[:, :, :3])
    image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        pixels, format="png", dpi=(DPI, DPI)
    )
    write_text(svg, pasteable(words.getvalue(), figure))
    with replacing(png, binary=True) as file:
        file.write(pixels.getvalue())
    return Drawn(figure.name, figure.title, figure.caption, figure.alt, svg, png)


def pasteable(svg: str, figure: Figure) -> str:
    """The SVG without prologue and metadata, its ids and its style sheet told apart from all others."""
    name = figure.name
    svg = _METADATA.sub("", _HEAD.sub("", svg))
    svg = _REFERENCE.sub(rf"\g<1>{name}-", _ID.sub(rf'id="{name}-\1"', svg))
    svg = svg.replace('<style type="text/css">*{', f'<style type="text/css">#{name} *{{')
    opening = (
        rf'<svg \1 id="{name}" role="img" aria-labelledby="{name}-title {name}-alt">\n'
        f'<title id="{name}-title">{_plain(figure.title)}</title>\n'
        f'<desc id="{name}-alt">{_plain(figure.alt)}</desc>'
    )
    return _OPENING.sub(opening, svg, count=1)


def _plain(text: str) -> str:
    # A backslash would be read as a reference by the substitution.
    return escape(text).replace("\\", "\\\\")
