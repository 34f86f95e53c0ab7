"""
The page in a real browser: it looks for nothing outside, fits a phone, and its tables work by keyboard.

Skipped where neither Debian's chromium nor playwright is installed.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from report_base import BREAKOUT, example

from reconciler.report import page
from reconciler.report.values import Report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: apt-get install chromium")

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
WIDTHS = [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")]


@dataclass
class Opened:
    """A page in a window, and what it did."""

    page: Any
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def ask(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        window = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield window
        window.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Any]:
    contexts = []

    def opened(report: Report, width: int = 1280, scheme: str = "light") -> Opened:
        file = tmp_path / "report.html"
        file.write_text(page.html(report))
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        contexts.append(context)
        shown = Opened(context.new_page())
        shown.page.on("console", lambda message: shown.errors.append(message.text))
        shown.page.on("pageerror", lambda error: shown.errors.append(str(error)))
        shown.page.on("request", lambda request: shown.asked.append(request.url.partition(":")[0]))
        shown.page.goto(file.as_uri())
        return shown

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width, scheme", WIDTHS)
def test_a_report_fits_its_window_says_nothing_and_asks_for_nothing(
    show: Any, report: Report, width: int, scheme: str
) -> None:
    shown = show(report, width, scheme)

    assert width == shown.ask("document.documentElement.scrollWidth")
    assert [] == shown.errors
    assert {"file", "data"} >= set(shown.asked)
    assert 6 == shown.page.locator("#items tbody tr").count()


def test_hostile_items_are_shown_and_do_nothing(show: Any, report: Report) -> None:
    shown = show(report)
    dialogs: list[str] = []
    shown.page.on("dialog", lambda dialog: dialogs.append(dialog.message))

    shown.page.get_by_label("Search items").fill("onerror")

    playwright.expect(shown.page.locator("#items tbody tr")).to_have_count(1)
    assert BREAKOUT in shown.page.locator("#items tbody tr").inner_text()
    assert 0 == shown.page.locator("img").count()
    assert ([], []) == (dialogs, shown.errors)


def test_a_script_that_slipped_in_would_not_run(show: Any, report: Report) -> None:
    shown = show(report)

    shown.ask("""() => { const made = document.createElement("script");
        made.textContent = "window.ran = true"; document.body.append(made); }""")

    assert shown.ask("window.ran") is None
    assert "Content Security Policy" in shown.errors[0]


def test_search_keeps_the_items_that_hold_every_word(show: Any) -> None:
    shown = show(example(40))
    rows, count = shown.page.locator("#items tbody tr"), shown.page.locator("#items .count")
    playwright.expect(rows).to_have_count(15)

    shown.page.get_by_label("Search items").fill("answer #37")

    playwright.expect(rows).to_have_count(1)
    playwright.expect(count).to_have_text("1 of 40 items")
    assert {"answer", "#37"} == set(shown.page.locator("#items mark").all_inner_texts())


def test_items_are_paged_by_keyboard(show: Any) -> None:
    shown = show(example(40))
    where = shown.page.locator("#items .where")

    shown.page.locator("#items .pager button").last.focus()
    shown.page.keyboard.press("Enter")
    shown.page.keyboard.press("Space")

    playwright.expect(where).to_have_text("page 3 of 3")
    playwright.expect(shown.page.locator("#items tbody tr")).to_have_count(10)
    playwright.expect(shown.page.locator("#items .pager button").last).to_be_disabled()


def test_flips_show_both_answers_and_can_be_narrowed_by_keyboard(show: Any, report: Report) -> None:
    shown = show(report)
    rows = shown.page.locator("#flips tbody tr")
    playwright.expect(rows).to_have_count(4)

    shown.page.get_by_role("button", name="lost").first.focus()
    shown.page.keyboard.press("Enter")

    playwright.expect(rows).to_have_count(1)
    assert BREAKOUT in rows.inner_text()
    assert "answer 0" in rows.inner_text()


def test_a_long_text_is_folded_until_it_is_asked_for(show: Any, report: Report) -> None:
    shown = show(report)
    last = shown.page.locator("#items tbody tr").last
    before = len(last.inner_text())

    last.get_by_role("button", name="show all").first.focus()
    shown.page.keyboard.press("Enter")

    assert len(last.inner_text()) > before + 900
    playwright.expect(last.get_by_role("button", name="show less").first).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_text_is_easy_to_read_against_its_background(show: Any, report: Report, scheme: str) -> None:
    shown = show(report, 1280, scheme)

    worst = shown.ask(CONTRAST)

    assert worst["ratio"] >= 4.5, worst


def test_a_page_without_its_script_still_shows_the_verdict_and_says_what_is_missing(
    browser: Any, report: Report, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text(page.html(report))
    context = browser.new_context(java_script_enabled=False)
    shown = context.new_page()
    shown.goto((tmp_path / "report.html").as_uri())

    playwright.expect(shown.locator("#verdict .gate-row")).to_have_count(2)
    playwright.expect(shown.locator("#items noscript")).to_be_visible()
    context.close()


# WCAG 2's contrast of every text with the nearest painted background, the worst of them
CONTRAST = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const found = rgb(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  let worst = { ratio: 99 };
  for (const node of document.querySelectorAll("body *:not(script)")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.disabled || !node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(rgb(node instanceof SVGElement ? style.fill : style.color)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst.ratio) worst = { ratio, text: node.textContent.slice(0, 40), class: node.getAttribute("class") };
  }
  return worst;
}"""
