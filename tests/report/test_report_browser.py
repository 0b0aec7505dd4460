"""The report's page in a real browser: sorting, enlarging, links, dark mode, and an accessibility check."""

from dataclasses import replace
from urllib.request import pathname2url

import pytest

from bench.analysis.summary import summarise
from bench.report.overview_report import write_overview
from bench.report.study_report import write
from tests.support.synthetic import (
    LEVEL,
    RUN_PAGES,
    make_evidence,
    make_images,
    make_stages,
    make_study,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two studies and their comparison."""
    folder, summaries = tmp_path_factory.mktemp("reports"), []
    for name in ("small_similar", "other"):
        evidence = make_evidence(make_study(name=name), failed=[("partial", 1)])
        write(replace(evidence, stages=make_stages(evidence), images=make_images(evidence)), folder / name)
        summaries.append((evidence.study, summarise(evidence)))
    write_overview(summaries, folder / "all")
    return folder


@pytest.fixture
def open_page(browser, folder):
    opened = []

    def open_(name, **options):
        page = browser.new_page(viewport={"width": 1240, "height": 900}, **options)
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.complaints.append(request.url))
        page.goto("file:" + pathname2url(str(folder / name / "index.html")))
        opened.append(page)
        return page

    yield open_
    for page in opened:
        page.close()


def open_all(page):
    page.locator("details").evaluate_all("all => all.forEach(details => details.open = true)")


def column(page, number):
    cells = page.locator("table").first.locator("tbody tr")
    return cells.evaluate_all("(rows, n) => rows.map(r => r.cells[n].textContent.trim())", number)


def test_a_click_on_a_header_sorts_by_it(open_page):
    page = open_page("small_similar")
    header = page.get_by_role("button", name="Test accuracy [95 %]").first
    unsorted = [float(text.split(" ")[0]) for text in column(page, 1)]
    assert unsorted == sorted(unsorted, reverse=True), "the best comes first"
    header.click()
    means = [float(text.split(" ")[0]) for text in column(page, 1)]
    assert means == sorted(means)
    header.click()
    assert [float(text.split(" ")[0]) for text in column(page, 1)] == sorted(means, reverse=True)
    assert page.locator("[aria-sort=descending]").count() == 1
    page.get_by_role("button", name="Strategy").first.press("Enter")
    assert column(page, 0) == sorted(LEVEL)


def test_a_figure_is_enlarged_and_put_back(open_page):
    page = open_page("small_similar")
    small = page.locator(".picture img").first
    before = small.bounding_box()["width"]
    page.get_by_role("button", name="Enlarge: Mean test accuracy").click()
    large = page.locator("dialog img")
    assert large.bounding_box()["width"] > 1.5 * before
    assert large.evaluate("image => image.naturalWidth") > 0
    assert large.get_attribute("src") == small.get_attribute("src")
    page.keyboard.press("Escape")
    assert not large.is_visible()


def test_links_lead_to_the_runs_in_mlflow_and_to_files(open_page, folder):
    page = open_page("small_similar")
    page.get_by_text("Every final run", exact=True).click()
    assert page.get_by_role("link", name="full2").get_attribute("href") == f"{RUN_PAGES}full2"
    for link in page.locator("a[href]").evaluate_all("links => links.map(a => a.getAttribute('href'))"):
        assert link.startswith(("http", "#")) or (folder / "small_similar" / link).is_file()


def test_every_picture_is_drawn_and_nothing_is_loaded_from_elsewhere(open_page):
    page = open_page("small_similar")
    images = page.locator(".picture img")
    assert all(images.evaluate_all("images => images.map(i => i.complete && i.naturalWidth > 0)"))
    assert [text for text in page.complaints if not text.startswith(("file:", "data:"))] == []


def test_figures_follow_the_page_into_the_dark(open_page):
    def brightness(scheme):
        page = open_page("small_similar", color_scheme=scheme)
        return page.locator(".picture img").first.evaluate(
            """async image => {
                const canvas = document.createElement("canvas");
                canvas.width = canvas.height = 400;
                const context = canvas.getContext("2d");
                context.drawImage(image, 0, 0, 400, 400);
                return context.getImageData(1, 1, 1, 1).data[0];
            }"""
        )

    assert brightness("light") == 0xFF
    assert brightness("dark") == 0x1F


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["small_similar", "all"])
def test_axe_finds_nothing_to_complain_about(open_page, name, scheme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python"
    )
    page = open_page(name, color_scheme=scheme, bypass_csp=True)  # for axe's own script
    open_all(page)
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.fixture
def narrow(browser, folder):
    """Open a page at a width in pixels."""
    pages = []

    def open_(width):
        pages.append(browser.new_page(viewport={"width": width, "height": 800}))
        pages[-1].goto("file:" + pathname2url(str(folder / "small_similar" / "index.html")))
        return pages[-1]

    yield open_
    for page in pages:
        page.close()


def test_it_can_be_read_on_a_telephone(narrow):
    page = narrow(390)
    open_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = page.locator(".wide .picture")
    assert wide.count() >= 2
    assert all(wide.locator("img").evaluate_all("images => images.map(i => i.clientWidth >= 600)"))
    assert all(wide.evaluate_all("all => all.map(e => e.scrollWidth > e.clientWidth)"))  # it scrolls


def test_no_column_is_cut_off_on_a_small_laptop(narrow):
    page = narrow(1280)
    open_all(page)
    tables = page.locator(".scroll")
    assert all(tables.evaluate_all("all => all.map(e => e.scrollWidth <= e.clientWidth)"))


def test_what_is_cut_shows_that_there_is_more(narrow):
    """A shadow on the edge of what scrolls: the page's colour covers it where nothing is left to see."""
    page = narrow(390)
    cut = page.locator(".scroll, .contents").evaluate_all(
        """all => all.filter(e => e.scrollWidth > e.clientWidth)
            .map(e => getComputedStyle(e).backgroundAttachment.includes("local"))"""
    )
    assert len(cut) >= 2
    assert all(cut)


def test_the_contents_stay_and_open_what_is_folded(open_page):
    page = open_page("small_similar")
    contents = page.get_by_role("navigation", name="Contents")
    assert page.locator("#pairs").get_attribute("open") is None
    contents.get_by_role("link", name="Pairs").click()
    assert page.locator("#pairs").get_attribute("open") is not None
    assert page.get_by_role("region", name="Every pair of strategies").is_visible()
    page.wait_for_timeout(100)
    assert page.evaluate("scrollY") > 500
    assert contents.bounding_box()["y"] == 0


def test_first_come_verdict_results_recipe_cost_and_examples_and_all_else_is_folded(open_page):
    page = open_page("small_similar")
    shown = page.locator("h2").evaluate_all(
        "all => all.filter(h => !h.closest('details')).map(h => h.textContent)"
    )
    assert shown == ["Results", "Recipe", "Cost", "Examples", "Do it again"]


def test_what_is_pointed_at_is_said(open_page):
    page = open_page("small_similar")
    picture = page.locator("[data-spots]").first
    left, top, words = picture.evaluate("one => JSON.parse(one.dataset.spots).at(-1)")
    picture.scroll_into_view_if_needed()
    box = picture.locator("img").bounding_box()
    tip = page.locator(".tip")
    assert not tip.is_visible()
    page.mouse.move(box["x"] + left * box["width"], box["y"] + top * box["height"])
    assert tip.inner_text() == words
    assert words.startswith(("scratch: 0.", "feature_extractor: 0.", "partial: 0.", "full: 0.", "disc"))
    page.mouse.move(2, 2)
    assert not tip.is_visible()
