"""The leaderboard's page, in a browser: what a reader sees and does with it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from boards import variant
from commands import one_line_error

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
    """Chromium without a window; if there is none, tests are skipped, or fail if it is required."""
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
    """The page, and the CSV of the same rows: of five a task, two share a rank, one has two seeds, one is apart."""
    folder = tmp_path_factory.mktemp("board")
    runs = folder / "runs"
    variant(small_run, runs / "evil", reg=EVIL, gain=0.05)
    variant(small_run, runs / "near", reg="dropout@1,2:drop_prob=0.1", gain=0.0499, noise=0.05)
    variant(small_run, runs / "none", reg="none", gain=-0.01)
    for seed in (0, 1):
        variant(small_run, runs / f"s{seed}", seed=seed, gain=-0.5 + seed / 100)
    variant(small_run, runs / "tasks", config={"lr": 0.05}, row={"episodes_digest": "e" * 64})
    flags = ["--runs", runs, "--csv", folder / "b.csv", "--html", folder / "b.html"]
    assert console.run(leaderboard.main, [str(flag) for flag in flags]) == 0
    return folder / "b.html", (folder / "b.csv").read_bytes()


@pytest.fixture
def page(browser: Browser, board: tuple[Path, bytes]) -> Iterator[Page]:
    """The page, opened. The test fails if the page logs anything, or requests anything from elsewhere."""
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


def accuracy(row: dict[str, str]) -> str:
    """The cell of a row of the CSV, with a mark below the figure if one of its runs is no better than guessing."""
    mean, half = float(row["accuracy"]), float(row["ci95"])
    runs = [(100 * run["accuracy"], 100 * run["ci95"]) for run in json.loads(row["each_run"])]
    guessed = any(own - its <= 100 / int(row["ways"]) for own, its in runs)
    return f"{mean:.2f} ± {half:.2f}" + "\nat chance" * guessed


def test_it_shows_the_rows_of_the_csv_and_runs_nothing_that_is_in_them(page, board):
    rows = list(csv.DictReader(io.StringIO(board[1].decode(), newline="")))
    shown = [text for at in range(page.locator("section").count()) for text in column(page, "accuracy", at)]
    assert shown == list(map(accuracy, rows))
    assert [text.endswith("at chance") for text in shown].count(True) == 2, "the two seeds that guess, in either task"
    assert [key.count("guessing, 20.00%") for key in page.locator(".key").all_inner_texts()] == [1, 0, 1, 0]
    assert page.locator("h2").all_inner_texts() == [
        "glyphs 5-way 1-shot", "glyphs 5-way 1-shot (other episodes)",
        "glyphs 5-way 5-shot", "glyphs 5-way 5-shot (other episodes)",
    ]  # fmt: skip
    assert column(page, "rank") == ["1=", "1=", "3", "4"]
    assert column(page, "spec")[0] == EVIL and page.evaluate("window.evil") is None
    assert page.locator("tbody .plot > svg").count() == len(rows)
    text = page.inner_text("body")
    assert "of this trained network on this test set" in text and "of what training again gives on average" in text
    assert "1.96 * std / sqrt(n)" in text and "training anew" in text
    assert "after seeing 1 labelled image of each" in text and "6 runs, the newest of" in text
    assert page.get_by_role("link", name="all rows as CSV").get_attribute("href") == "b.csv"


def test_without_javascript_the_page_is_the_same_tables(browser, board):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(board[0].as_uri())
    rows = list(csv.DictReader(io.StringIO(board[1].decode(), newline="")))
    shown = [line.split("\t") for line in page.locator("tbody tr").all_inner_texts()]
    assert [cells[1] for cells in shown] == [row["regularizer"] for row in rows]
    assert page.locator("tbody .accuracy").all_inner_texts() == list(map(accuracy, rows))
    assert page.locator("h2").count() == 4
    assert page.locator("button:visible, select:visible, input:visible").count() == 0, "nothing that would do nothing"
    page.set_viewport_size({"width": 320, "height": 700})
    assert page.locator("tbody .spec").first.bounding_box()["x"] >= 0
    context.close()


# What a table, a row group and a row may own, that is, its nearest descendants that have a role (WAI-ARIA 1.2).
OWNED = """() => {
  const allowed = { table: ["rowgroup"], rowgroup: ["row"], row: ["cell", "columnheader", "rowheader"] };
  const tags = { H1: "heading", H2: "heading", CAPTION: "caption", BUTTON: "button", P: "paragraph" };
  const role = (element) => element.getAttribute("role") ?? tags[element.tagName];
  const owned = (element) => [...element.children].flatMap((child) => (role(child) ? [role(child)] : owned(child)));
  return Object.entries(allowed).flatMap(([name, kinds]) =>
    [...document.querySelectorAll(`[role=${name}]`)].map((element) => {
      const found = owned(element);
      return found.length && found.every((kind) => kinds.includes(kind)) ? "" : `${name} owns ${found}`;
    })).filter(Boolean);
}"""


def test_tables_own_what_their_roles_allow(page):
    """axe-core's rule aria-required-children: to CSS, cards are not tables, so the roles are written out."""
    page.locator(".more").first.click()
    assert page.locator("[role=table]").count() == page.locator("table").count() == 4
    assert page.evaluate(OWNED) == []
    for element, kind in (("thead", "rowgroup"), ("tbody", "rowgroup"), ("tr", "row"), ("td", "cell")):
        assert page.locator(f"{element}:not([role={kind}])").count() == 0
    names = [page.locator(f"#{name}").inner_text() for name in page.evaluate(
        "[...document.querySelectorAll('table')].map((table) => table.getAttribute('aria-labelledby'))")]  # fmt: skip
    assert names == page.locator("h2").all_inner_texts()


def test_an_outlier_does_not_shrink_the_other_whiskers(page):
    """Row 4, of two seeds, is 50 points below the others; an arrow stands for it, and its whisker ends at the edge."""
    plots = page.locator("section").first.locator("tbody .plot")
    widths = [plots.nth(at).locator("line.whisker").first.bounding_box()["width"] for at in range(4)]
    assert min(widths[:3]) > plots.first.bounding_box()["width"] / 10
    assert [plots.nth(at).locator("circle").count() for at in range(4)] == [1, 1, 1, 0]
    assert [plots.nth(at).locator(".arrow").count() for at in range(3)] == [0, 0, 0]
    assert plots.nth(3).locator(".arrow").count() > 0


def test_labels_of_the_axis_stay_clear_of_the_next_column(page):
    for section in range(page.locator("section").count()):
        head = page.locator("section").nth(section).locator("th.plot")
        cell = head.bounding_box()
        for label in head.locator("text").all():
            box = label.bounding_box()
            assert cell["x"] + 4 <= box["x"] and box["x"] + box["width"] <= cell["x"] + cell["width"] - 4


def test_it_is_one_small_file_that_may_load_nothing(browser, board):
    page = browser.new_page()
    page.goto(board[0].as_uri())
    policy = page.locator("meta[http-equiv='Content-Security-Policy']").get_attribute("content")
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "http" not in policy
    data = len(page.locator("#data").text_content().encode()) + len(page.locator("main").inner_html().encode())
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
    page.get_by_text("10 of 10 rows shown").wait_for()
    assert page.url.endswith("#")
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


def test_title_and_link_are_the_users_and_inert(small_run, tmp_path, browser, capsys):
    flags = ["--runs", small_run.parent, "--csv", tmp_path / "a b.csv"]
    shown = ["--html", tmp_path / "pages" / "p.html", "--title", "Mine <b>", "--link", "https://example.org/x?a=1&b=2"]
    assert console.run(leaderboard.main, [str(flag) for flag in [*flags, *shown]]) == 0
    page = browser.new_page()
    page.goto((tmp_path / "pages" / "p.html").as_uri())
    assert (page.title(), page.locator("h1").inner_text()) == ("Mine <b>", "Mine <b>")
    links = [link.get_attribute("href") for link in page.locator("header a").all()]
    assert links == ["../a%20b.csv", "https://example.org/x?a=1&b=2"]
    page.close()
    capsys.readouterr()
    for wrong, expected in (
        (["--title", "Mine"], "--title is for the page: give --html FILE, too"),
        (["--html", tmp_path / "p.html", "--link", "javascript:alert(1)"], "give an address that begins with https://"),
    ):
        assert console.run(leaderboard.main, [str(flag) for flag in [*flags, *wrong]]) == console.USER_ERROR
        assert expected in one_line_error(capsys)


def test_transductive_boards_say_so_and_can_be_chosen(small_run, tmp_path, browser):
    variant(small_run, tmp_path / "runs" / "a")
    variant(small_run, tmp_path / "runs" / "b", row={"setting": "transductive", "transform": "center+l2"})
    flags = ["--runs", tmp_path / "runs", "--csv", tmp_path / "b.csv", "--html", tmp_path / "b.html"]
    assert console.run(leaderboard.main, [str(flag) for flag in flags]) == 0
    page = browser.new_page()
    page.goto((tmp_path / "b.html").as_uri())
    assert page.locator("h2").all_inner_texts()[:2] == ["glyphs 5-way 1-shot", "glyphs 5-way 1-shot, transductive"]
    assert column(page, "head", 1) == ["proto after center+l2"]
    page.get_by_label("Setting").select_option("transductive")
    assert page.locator("section:visible").count() == 2
    assert not page.get_by_label("Backbone").is_visible(), "a filter with one choice is none"
    page.close()


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


# The lowest contrast of any text with its background, by WCAG 2's formula.
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
