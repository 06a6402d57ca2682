"""The leaderboard's page, in a browser: what a reader sees and does with it."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from boards import variant

from fewshot import leaderboard
from fewshot.core import console

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EVIL = '</script><script>window.evil = 1</script><!-- <b>mine:say="a, b"'


def _unavailable(why: str) -> None:
    if os.environ.get("FEWSHOT_REQUIRE_BROWSER") == "1":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window; skipped where there is none, failed where it is required."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        _unavailable("there is no chromium on PATH (Debian: apt-get install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _unavailable("playwright is not installed (pip install 'fewshot[test]')")
    with sync_playwright() as playwright:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]  # which root cannot have
        browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def board(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """The page, and the CSV of the same rows: five rows a task, two of them equals, one of two seeds."""
    folder = tmp_path_factory.mktemp("board")
    runs = folder / "runs"
    variant(small_run, runs / "evil", reg=EVIL, gain=0.05)
    variant(small_run, runs / "near", reg="dropout@1,2:drop_prob=0.1", gain=0.0499, noise=0.05)
    variant(small_run, runs / "none", reg="none", gain=-0.01)
    for seed in (0, 1):
        variant(small_run, runs / f"s{seed}", seed=seed, gain=-0.5 + seed / 100)
    variant(small_run, runs / "tasks", row={"episodes_digest": "e" * 64})
    flags = ["--runs", runs, "--csv", folder / "b.csv", "--html", folder / "b.html"]
    assert console.run(leaderboard.main, [str(flag) for flag in flags]) == 0
    return folder / "b.html", (folder / "b.csv").read_bytes()


@pytest.fixture
def page(browser: Browser, board: tuple[Path, bytes]) -> Iterator[Page]:
    """The page, opened; whatever it complains of, or asks of anyone, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.set_default_timeout(5000)
    page, noise, asked = context.new_page(), [], []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(board[0].as_uri())
    yield page
    assert not noise
    assert not [url for url in asked if not url.startswith((board[0].as_uri(), "blob:"))]
    context.close()


def column(page: Page, name: str, section: int = 0) -> list[str]:
    return page.locator("section").nth(section).locator(f"tbody .{name}").all_inner_texts()


def test_it_shows_the_rows_of_the_csv_and_runs_nothing_that_is_in_them(page, board):
    rows = list(csv.DictReader(io.StringIO(board[1].decode(), newline="")))
    shown = [text for at in range(page.locator("section").count()) for text in column(page, "accuracy", at)]
    assert shown == [f"{row['accuracy']} ± {row['ci95']}" for row in rows]
    assert page.locator("h2").all_inner_texts() == [
        "glyphs, 5-way 1-shot", "glyphs, 5-way 1-shot (other episodes)",
        "glyphs, 5-way 5-shot", "glyphs, 5-way 5-shot (other episodes)",
    ]  # fmt: skip
    assert column(page, "rank") == ["1=", "1=", "3", "4"]
    assert column(page, "spec")[0] == EVIL and page.evaluate("window.evil") is None
    assert page.locator("tbody .plot svg circle").count() == len(rows)
    text = page.inner_text("body")
    assert "of this test set’s value only" in text and "1.96 * std / sqrt(n)" in text and "training anew" in text


def test_it_is_one_small_file_that_may_load_nothing(browser, board):
    page = browser.new_page()
    page.goto(board[0].as_uri())
    policy = page.locator("meta[http-equiv='Content-Security-Policy']").get_attribute("content")
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "http" not in policy
    data = len(page.locator("#data").text_content().encode())
    assert board[0].stat().st_size - data < 40_000
    assert page.evaluate("fetch('data:text/plain,x').then(() => 'loaded', () => 'refused')") == "refused"
    page.close()


def test_a_click_or_a_key_sorts_every_board(page):
    head = page.locator("section").first.locator("th.accuracy")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    down = column(page, "accuracy")
    page.keyboard.press("Enter")  # the button still has the focus
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "accuracy") == down[::-1] and down[0] > down[-1]
    five = [float(text.split()[0]) for text in column(page, "accuracy", 2)]
    assert five == sorted(five)
    page.locator("section").first.get_by_role("button", name="Regularizer").press("Space")
    assert column(page, "spec") == sorted(column(page, "spec"))
    assert page.locator("section").first.locator("[aria-sort]").count() == 1
    assert page.url.endswith("#sort=spec")


def test_a_view_is_in_the_address_and_can_be_shared(page, browser):
    page.get_by_label("Shots").select_option("5")
    page.get_by_label("Regularizer").select_option("targetdrop")
    page.get_by_label("Any text").fill("S{0,1} cpu")
    assert page.locator("section:visible").count() == 1
    assert column(page, "spec", 2) == ["targetdrop"] and column(page, "seeds", 2) == ["2"]
    assert page.get_by_role("status").inner_text() == "1 of 10 rows shown"
    guest = browser.new_page()
    guest.goto(page.url)
    assert guest.get_by_role("status").inner_text() == "1 of 10 rows shown"
    assert guest.get_by_label("Any text").input_value() == "S{0,1} cpu"
    guest.close()
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("location.hash === '' || location.hash === '#'")
    assert page.get_by_role("status").inner_text() == "10 of 10 rows shown"
    page.get_by_label("Any text").fill("nobody")
    assert "No row is like that" in page.get_by_role("status").inner_text()


def download(page: Page) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download CSV").click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_the_download_is_the_csv_of_the_rows_shown(page, board):
    assert page.locator("#download").inner_text() == "Download CSV: all 10 rows"
    assert download(page) == ("leaderboard.csv", board[1])
    page.get_by_label("Regularizer").select_option(EVIL)
    assert page.locator("#download").inner_text() == "Download CSV: the 2 shown"
    lines = list(csv.reader(io.StringIO(board[1].decode(), newline="")))
    chosen = io.StringIO(newline="")
    csv.writer(chosen).writerows(line for line in lines if line[6] in ("regularizer", EVIL))
    assert download(page) == ("leaderboard-shown.csv", chosen.getvalue().encode())


def test_details_open_and_close_by_the_keyboard(page):
    more = page.get_by_role("button", name="Details of targetdrop, rank 4").first
    more.press("Enter")
    assert more.get_attribute("aria-expanded") == "true"
    facts = page.locator("tr.details").inner_text()
    assert "accuracy of each seed" in facts and "s{0,1}" in facts
    more.press("Enter")
    assert page.locator("tr.details").count() == 0


@pytest.mark.parametrize("width", [320, 360, 768, 1024, 1280])
def test_no_width_makes_the_page_scroll_sideways(page, width):
    page.set_viewport_size({"width": width, "height": 700})
    page.locator(".more").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


# The least contrast of any text with what is behind it, by WCAG 2's formula.
CONTRAST = """() => {
  const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (element) => {
    const color = rgb(getComputedStyle(element).backgroundColor);
    return color.length < 4 || color[3] > 0 ? color : behind(element.parentElement);
  };
  const speaks = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const texts = [...document.body.querySelectorAll(":not(noscript, script, svg, svg *)")];
  const ratios = texts.filter((element) => element.checkVisibility() && speaks(element)).map((element) => {
    const pair = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  });
  return Math.min(...ratios);
}"""
PAPER = "getComputedStyle(document.body).backgroundColor"


def test_it_is_light_or_dark_as_the_system_or_the_reader_wants_and_readable_in_both(page):
    page.locator(".more").first.click()
    light = page.evaluate(PAPER)
    assert page.evaluate(CONTRAST) >= 4.5
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(PAPER)
    assert dark != light and page.evaluate(CONTRAST) >= 4.5
    page.get_by_role("button", name="Light page").click()
    assert page.evaluate(PAPER) == light
    page.get_by_role("button", name="Dark page").click()
    assert page.evaluate(PAPER) == dark
