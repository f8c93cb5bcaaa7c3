"""report.html in a real browser: phone, desktop, dark and print; no message, no request, nothing wider than the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hfpipe.reports import write_group_report, write_report
from hfpipe.runs import Run

CHROMIUM = Path(os.environ.get("HFPIPE_CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MOST_BYTES = 500_000
VIEWS = [(360, "light"), (360, "dark"), (1280, "light"), (1280, "dark")]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"{CHROMIUM} is not there; HFPIPE_CHROMIUM names another one"),
]
# Contrast of every text against what is behind it (WCAG 2: 4.5 to 1), as the browser paints it.
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (rgb) => rgb.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const page = rgba(getComputedStyle(document.body).backgroundColor);
  const behind = (node) => { for (; node; node = node.parentElement) { const [r, g, b, a] =
      rgba(getComputedStyle(node).backgroundColor); if (a === 255) return [r, g, b];
      if (a) return [r, g, b].map((v, i) => (v * a + page[i] * (255 - a)) / 255); } return page; };
  const low = [];
  for (const node of document.querySelectorAll('p, li, th, td, dt, dd, h1, h2, h3, pre, figcaption, a, text')) {
    if (!node.textContent.trim() || getComputedStyle(node).display === 'none') continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(rgba(node.tagName === 'text' ? style.fill : style.color)), light(behind(node))].sort();
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push([node.tagName, node.textContent.trim().slice(0, 40), ratio]);
  }
  return low;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the dev extra")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def look(browser: Any) -> Callable[..., Any]:
    """Opens a page and holds that it asks for nothing and says nothing; gives the page."""

    def open_page(file: Path, width: int, scheme: str) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page = context.new_page()
        asked: list[str] = []
        said: list[str] = []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))

        def judge(route: Any) -> None:
            asked.append(route.request.url)
            if route.request.url == file.as_uri():
                route.continue_()
            else:
                route.abort()

        page.route("**/*", judge)
        page.goto(file.as_uri(), wait_until="load")
        assert asked == [file.as_uri()]
        assert said == []
        return page

    return open_page


def require_readable(page: Any) -> None:
    """Nothing reaches beyond the page, every drawing has a size, and every text stands out from what is behind it."""
    widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1]
    beyond = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, p, li, figure, pre, dl, .box')].filter(node => "
        "node.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(node => node.outerHTML)"
    )
    assert beyond == []
    drawings = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(one => one.getBoundingClientRect().height)"
    )
    assert drawings
    assert all(height > 40 for height in drawings)
    assert page.evaluate(CONTRAST) == []


@pytest.fixture(scope="module")
def reports(
    tmp_path_factory: pytest.TempPathFactory,
    make_run: Callable[..., Run],
    classification: Callable[..., dict[str, Any]],
    regression: dict[str, Any],
    audit: Callable[..., dict[str, Any]],
) -> list[Path]:
    """Reports of two, of 77 and of oddly named classes, of 100,000 steps, of a regression, and of a group."""
    dummy_predictions = partial(make_run, tmp_path_factory.mktemp("runs"))
    many = [f"a class with a name of some length {row}" for row in range(77)]
    odd = ["<script>alert(1)</script>", "x" * 120, "fünf", "four", "five", "six"]
    runs = [
        dummy_predictions("two", document=classification(["different", "same"]), audited=audit(["different", "same"])),
        dummy_predictions("many", document=classification(many, 3000), audited=audit(many)),
        dummy_predictions(
            "odd-" + "long-name-" * 5, document=classification(odd), audited=audit(odd), notices=["word" * 80]
        ),
        dummy_predictions("long", document=classification(["different", "same"]), steps=100_000),
        dummy_predictions("number", document=regression, audited=audit(None)),
    ]
    for run in runs:
        write_report(run)
    spread = {"mean": 0.9, "standard_deviation": 0.01, "interval": [0.89, 0.91], "baseline": 0.684, "seeds_needed": 3}
    group = runs[0].path.parent
    write_group_report(group, "a group", [runs[0], runs[3]], {"metrics": {"accuracy": spread}, "split": "validation"})
    return [run.path / "report.html" for run in runs] + [group / "report.html"]


def test_reports_are_readable_everywhere(reports: list[Path], look: Callable[..., Any]) -> None:
    """On a phone and a desktop, light and dark, each kind of report is whole, silent, small and legible."""
    for file in reports:
        assert file.stat().st_size < MOST_BYTES
        for width, scheme in VIEWS:
            page = look(file, width, scheme)
            require_readable(page)
            page.context.close()


def test_dark_is_dark_and_print_is_light(reports: list[Path], look: Callable[..., Any]) -> None:
    """The colours of the page and of its drawings follow the reader's choice, and paper is always white."""
    colours = """() => [getComputedStyle(document.body).backgroundColor,
                        getComputedStyle(document.querySelector('figure svg text')).fill]"""
    found = {}
    for scheme in ("light", "dark"):
        page = look(reports[0], 1280, scheme)
        found[scheme] = page.evaluate(colours)
        page.emulate_media(media="print", color_scheme=scheme)
        found[f"{scheme} print"] = page.evaluate(colours)
        page.context.close()
    assert found["dark"][0] != found["light"][0]
    assert found["dark"][1] != found["light"][1]
    assert found["dark print"] == found["light print"]
    assert found["light print"][0] == "rgb(255, 255, 255)"


def test_a_report_prints(reports: list[Path], look: Callable[..., Any]) -> None:
    """A PDF of a few pages comes out, with nothing wider than the paper."""
    page = look(reports[0], 794, "dark")
    page.emulate_media(media="print")
    require_readable(page)
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert 2 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 8
    page.context.close()


def test_tables_scroll_in_their_own_box(reports: list[Path], look: Callable[..., Any]) -> None:
    """On a phone a table that is wider than the screen can be scrolled, and reached with the keyboard."""
    page = look(reports[1], 360, "light")
    boxes = page.evaluate(
        "[...document.querySelectorAll('.box')].map(one => [one.scrollWidth, one.clientWidth, one.tabIndex])"
    )
    assert any(inner > outer for inner, outer, _ in boxes)
    assert all(index == 0 for _, _, index in boxes)
    page.context.close()


def test_a_page_that_asks_for_something_is_found_out(tmp_path: Path, look: Callable[..., Any]) -> None:
    """The tests above can fail: an image from outside is noticed."""
    file = tmp_path / "page.html"
    file.write_text('<!doctype html><p>one</p><img src="http://example.invalid/x.png">', encoding="utf-8")
    with pytest.raises(AssertionError):
        look(file, 360, "light")
