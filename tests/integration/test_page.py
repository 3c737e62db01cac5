"""The search page in a browser."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fixtures.running_service import running

from finegrain.gallery import Gallery
from finegrain.search.alerts import threshold
from finegrain.search.searcher import Searcher
from finegrain.serve.app import Settings, create_app
from finegrain.serve.keys import KeyFile, KeyRing

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def galleries(tiny_plan, crops, tmp_path_factory):
    """Paths of two galleries of crops with a camera, a time and a price."""
    folder = tmp_path_factory.mktemp("page")
    start = datetime(2026, 5, 1, 8, tzinfo=UTC)
    with Searcher(tiny_plan, gallery=folder / "people", threads=1) as searcher:
        pictures = sorted(crops.iterdir()) * 3
        columns = [
            {
                "camera": f"gate-{n % 2}",
                "time": (start + timedelta(minutes=n)).isoformat(),
                "price": n,
                "brand": "Levi's 501" if n % 2 else "Acme",
            }
            for n in range(len(pictures))
        ]
        for n in range(3):  # the same files again, as new rows
            part = slice(12 * n, 12 * n + 12)
            images = [picture.read_bytes() for picture in pictures[part]]
            searcher.add(images, columns[part], progress=False)
    with Gallery(folder / "people", create=False) as gallery:
        gallery.backup(folder / "shop")
    return {name: folder / name for name in ("people", "shop")}


@pytest.fixture(scope="module")
def address(tiny_plan, galleries):
    app = create_app(Searcher(tiny_plan, gallery=galleries["people"], threads=1), Settings())
    with running(app) as address:
        yield address


@pytest.fixture
def page(browser, address):
    """The page, opened; at its end no error was logged and no other server was asked."""
    yield from _opened(browser, address)


def _opened(browser, address, **options):
    context = browser.new_context(locale="en-US", **options)
    page = context.new_page()
    errors, asked = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" else None
    )
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    context.close()
    assert errors == []
    assert all(url.startswith((address, "blob:")) for url in asked)


def search(page, typed):
    page.fill("#words", typed)
    page.locator("#search button[type=submit]").click()
    page.locator("#results li").first.wait_for()


def facts(page):
    return page.locator("#results .facts").all_inner_texts()


def count(page):
    return page.locator("#results li").count()


def test_a_search_shows_pictures_and_loads_more_when_scrolled(page):
    page.locator("#status", has_text="36 pictures").wait_for()
    search(page, "woman in red coat")
    page.locator("#results img[src]").first.wait_for()
    page.mouse.wheel(0, 5000)
    page.locator("#status", has_text="The best 36").wait_for()
    assert count(page) == 36


def test_conditions_are_chips_and_are_completed(page):
    page.locator("#status", has_text="36 pictures").wait_for()
    page.fill("#words", "coat ")
    page.locator("#words").press_sequentially("bra")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.input_value("#words") == 'coat brand:"Levi\'s 501" '
    page.keyboard.press("Enter")
    page.locator("#conditions .chip", has_text="Levi's 501").wait_for()
    page.locator("#status", has_text="The best 18").wait_for()


def test_groups_show_one_picture_of_each(page):
    page.locator("#status", has_text="36 pictures").wait_for()
    search(page, "coat")
    page.select_option("#group", "camera")
    page.locator("#status", has_text="The best 2").wait_for()


def test_judged_matches_leave_the_answer_until_they_are_removed(page):
    search(page, "coat price:<6")
    page.locator("#status", has_text="The best 6").wait_for()
    page.get_by_label("Right: show more like this").first.click()
    page.locator("#status", has_text="The best 5").wait_for()
    page.get_by_label("Wrong: show less like this").first.click()
    page.locator("#status", has_text="The best 4").wait_for()
    assert page.locator("#judged .chip").count() == 2
    page.locator("#judged .chip button").first.click()
    page.locator("#status", has_text="The best 5").wait_for()


def test_a_picture_is_cropped_and_searched_also_with_words(page, crops):
    page.locator("#status", has_text="36 pictures").wait_for()
    page.set_input_files("#picture", sorted(crops.iterdir())[0])
    page.locator("#crop[open]").wait_for()
    box = page.locator("#crop-canvas").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
    page.mouse.up()
    with page.expect_request("**/v1/search/picture") as sent:
        page.locator("#crop button[value=search]").click()
    assert sent.value.response().json()["answers"][0]["query"] == "<picture>"
    page.locator("#conditions .chip", has_text="Picture").wait_for()
    page.fill("#words", "but in a blue jacket")
    with page.expect_request("**/v1/search/picture") as sent:
        page.locator("#search button[type=submit]").click()
    assert "blue jacket" in sent.value.response().json()["answers"][0]["query"]


def test_a_picture_opens_by_keyboard_and_by_its_link(page, address):
    search(page, "coat")
    page.locator("#results button.picture").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("#detail[open] dt", has_text="camera").wait_for()
    link = page.url
    page.keyboard.press("Escape")
    page.goto("about:blank")
    page.goto(link)
    page.locator("#detail[open] dt", has_text="camera").wait_for()
    page.locator("#similar").click()
    page.locator("#conditions .chip", has_text="Picture").wait_for()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "words"


def test_the_timeline_has_a_line_for_each_camera(page):
    search(page, "coat")
    page.locator("#timeline summary").click()
    page.locator("#timeline-chart circle").first.wait_for()
    assert page.locator("#timeline-chart line").count() == 2
    page.locator("#timeline-chart circle").first.click()
    page.locator("#detail[open]").wait_for()


def test_searches_are_saved_and_removed(page):
    search(page, "red coat camera:gate-1")
    page.locator("#save").click()
    page.reload()
    page.locator("#saved summary").click()
    page.locator("#saved-list button", has_text="red coat camera:gate-1").click()
    page.locator("#status", has_text="The best 18").wait_for()
    page.locator("#saved-list button", has_text="×").click()
    assert not page.locator("#saved").is_visible()


@pytest.fixture
def everything_fires(monkeypatch):
    """Alerts with a rate raise an alarm for each picture, also over a small gallery."""
    monkeypatch.setattr(threshold, "exceeded_by", lambda scores, share: -1.0)
    monkeypatch.setattr(threshold, "LEAST_BACKGROUND", 1)


def test_a_saved_search_fires_for_new_pictures(
    browser, tiny_plan, galleries, crops, tmp_path, everything_fires
):
    with Gallery(galleries["people"], create=False) as gallery:
        gallery.backup(tmp_path / "g")
    app = create_app(
        Searcher(tiny_plan, gallery=tmp_path / "g", threads=1), Settings(alerts=tmp_path / "alerts")
    )
    with running(app) as address:
        for page in _opened(browser, address):
            search(page, "yellow coat camera:gate-1")
            page.locator("#save").click()
            page.locator("#saved summary").click()
            page.get_by_label("Tell me of new pictures").click()
            page.locator("#status", has_text="about one false alarm a day").wait_for()
            picture = sorted(crops.iterdir())[0].read_bytes()
            for camera in ("gate-0", "gate-1"):
                sent = httpx.post(
                    f"{address.replace('127.0.0.1', 'localhost')}/v1/pictures",
                    files={"pictures": picture},
                    data={"metadata": json.dumps({"camera": camera})},
                )
                assert sent.status_code == 200
            page.locator("#alarm-list button", has_text="gate-1").wait_for()
            page.locator("#alarm-list img[src]").wait_for()
            page.reload()  # alarms are kept by the service
            page.locator("#alarm-list button", has_text="gate-1").click()
            page.locator("#detail[open] dt", has_text="camera").wait_for()
            page.keyboard.press("Escape")
            assert page.locator("#alarm-list button").count() == 1
            page.screenshot(path=tmp_path / "alarms.png")
            page.locator("#saved summary").click()
            bell = page.get_by_label("Tell me of new pictures")
            assert bell.get_attribute("aria-pressed") == "true"
            bell.click()
            page.locator("#status", has_text="does not fire any more").wait_for()
            assert httpx.get(f"{address}/v1/alerts").json() == []


def test_a_link_of_browse_opens_the_page_once(browser, tiny_plan, galleries):
    with (
        Searcher(tiny_plan, gallery=galleries["people"], threads=1) as searcher,
        searcher.browse(open_browser=False) as browsing,
    ):
        link = browsing.link()
        context = browser.new_context(locale="en-US")
        page = context.new_page()
        page.goto(link)
        search(page, "coat")
        assert "once" not in page.url
        again = browser.new_context(locale="en-US").new_page()
        again.goto(link)
        again.locator("#key-dialog[open]").wait_for()
        context.close()
        again.context.close()


def test_the_page_speaks_three_languages(page):
    page.locator("#status", has_text="36 pictures").wait_for()
    search(page, "coat")
    for language, label in (("de", "Suchen"), ("zh", "搜索"), ("en", "Search")):
        page.select_option("#language", language)
        page.locator("#search button[type=submit]", has_text=label).wait_for()
        assert page.locator("html").get_attribute("lang") == language


def test_messages_help(page):
    page.locator("#status", has_text="36 pictures").wait_for()
    page.locator("#search button[type=submit]").click()
    page.locator("#status", has_text="Describe what to search for").wait_for()
    page.fill("#words", "coat price:>900")
    page.locator("#search button[type=submit]").click()
    page.locator("#status", has_text="No picture matches").wait_for()


def test_a_service_with_keys_asks_for_one_once(browser, tiny_plan, galleries, tmp_path):
    keys = KeyFile(tmp_path / "keys.json")
    secret = keys.make("tests", "read")
    searchers = {n: Searcher(tiny_plan, gallery=p, threads=1) for n, p in galleries.items()}
    with running(create_app(searchers, Settings(keys=KeyRing(keys)))) as address:
        context = browser.new_context(locale="en-US")
        page = context.new_page()
        page.goto(address)
        page.locator("#key-dialog[open]").wait_for()
        page.fill("#key", secret)
        page.keyboard.press("Enter")
        page.locator("#status", has_text="36 pictures").wait_for()
        page.select_option("#gallery", "shop")
        search(page, "coat")
        assert not page.locator("#key-dialog").is_visible()
        context.close()


@pytest.mark.parametrize(
    "options",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark", "viewport": {"width": 390, "height": 800}},
    ],
    ids=["light", "dark phone"],
)
def test_accessibility_has_no_violations(browser, address, options):
    from axe_playwright_python.sync_playwright import Axe

    for page in _opened(browser, address, bypass_csp=True, **options):
        page.locator("#status", has_text="36 pictures").wait_for()
        search(page, "coat camera:gate-1")
        page.get_by_label("Right: show more like this").first.click()
        page.locator("#judged .chip").wait_for()
        page.locator("#timeline summary").click()
        results = Axe().run(page)
        assert results.response["violations"] == [], results.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
