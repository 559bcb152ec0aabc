"""The study's pages in a browser: headless Chromium, where it is installed (Debian's package chromium)."""

import contextlib
import shutil

import pytest
from study_material import FRAMES, invited, make_study, served

from persistworld.apps.study.store import Store

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 60_000  # ms: a machine with other work
sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright: pip install playwright")
if CHROMIUM is None:
    pytest.skip("needs Chromium: apt-get install chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A served study of twelve items: its file, address and the administrator's token."""
    folder = tmp_path_factory.mktemp("browser")
    path, administrator = make_study(folder)
    with served(folder) as (address, _):
        yield path, address, administrator


@contextlib.contextmanager
def opened(browser, address: str, **size):
    """A page in which any error of a script fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 900} | size)
    page.set_default_timeout(PATIENCE)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(address)
    yield page
    page.close()
    assert not errors


def rater(path) -> tuple[str, int]:
    """Another rater of the study: token and number."""
    [token] = invited(path, 1)
    with contextlib.closing(Store(path)) as store:
        return token, store.rater_of(token)["id"]


def ready(page, place: int) -> None:
    """Wait until an item's films are shown."""
    page.wait_for_selector(f"#items li:nth-child({place}) button[aria-current=true]", state="attached")
    page.wait_for_selector("#films:not(.loading) video")


def answers(path, number: int) -> list[str | None]:
    with contextlib.closing(Store(path)) as store:
        return [row["answer"] for row in store.assignments(number)]


def times(page) -> list[float]:
    return page.eval_on_selector_all("#films video", "films => films.map(film => film.currentTime)")


def test_onboarding_ten_votes_with_keys_alone_undo_and_reload(browser, server):
    path, address, _ = server
    token, number = rater(path)
    with opened(browser, f"{address}#{token}") as page:
        page.wait_for_selector("#introduction:not([hidden])")
        assert page.is_visible("#introduction .for-preference") and not page.is_visible("#introduction .for-progress")
        while page.evaluate("document.activeElement.id") != "start":
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        for place in range(1, 11):
            ready(page, place)
            if place == 1:
                assert page.eval_on_selector_all("#films figcaption", "all => all.map(one => one.textContent)") == ["Reference", "A", "B"]
                assert "<b>cube</b>" in page.inner_text("#item-title")  # an instruction is text, whatever stands in it
                for _ in range(3):
                    page.keyboard.press("ArrowRight")
                assert page.input_value("#frame") == "3" and len(set(times(page))) == 1
                page.keyboard.press("End")
                assert page.input_value("#frame") == str(FRAMES - 1)
                page.keyboard.press("Space")  # from the start again
                page.wait_for_selector("#play[aria-pressed=true]")
                page.wait_for_selector("#play[aria-pressed=false]")  # at the end
                assert page.input_value("#frame") == str(FRAMES - 1) and len(set(times(page))) == 1
            page.keyboard.press("a" if place % 3 else "b")
        ready(page, 11)
        expected = ["a" if place % 3 else "b" for place in range(1, 11)]
        assert answers(path, number) == [*expected, None, None]
        page.keyboard.press("u")
        ready(page, 10)
        assert answers(path, number) == [*expected[:9], None, None, None]
        page.reload()
        ready(page, 10)
        assert "9 of 12" in page.inner_text("#count")
        for place in (10, 11, 12):
            ready(page, place)
            page.keyboard.press("b")
        page.wait_for_selector("#finished:not([hidden])")
        page.fill("#remark", "<img src=x onerror=alert(1)>")
        page.click("#send")
        page.wait_for_selector("#sent:has-text('Sent')")
        assert answers(path, number)[9:] == ["b", "b", "b"]


def test_on_a_phone_everything_fits_and_any_video_can_be_chosen(browser, server):
    path, address, _ = server
    token, number = rater(path)
    with opened(browser, f"{address}#{token}", width=375, height=740) as page:
        page.click("#start")
        ready(page, 1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        boxes = [page.locator(f"#films figure:nth-child({n})").bounding_box() for n in (1, 2, 3)]
        assert boxes[0]["y"] < boxes[1]["y"] == boxes[2]["y"] and boxes[1]["x"] < boxes[2]["x"]
        for button in page.locator("#choices button").all():
            box = button.bounding_box()
            assert box["height"] >= 44 and box["y"] + box["height"] <= 740
        page.click("#items li:nth-child(7) button")
        ready(page, 7)
        page.click("#choices button:has-text('B')")
        ready(page, 8)
        assert answers(path, number) == [*[None] * 6, "b", *[None] * 5]
        page.click("#items li:nth-child(7) button")
        ready(page, 7)
        assert page.is_disabled("#choices button:has-text('A')")  # has its vote


def test_a_vote_from_another_tab_is_seen_and_not_repeated(browser, server):
    path, address, _ = server
    token, number = rater(path)
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address}#{token}")
    page.click("#start")
    ready(page, 1)
    with contextlib.closing(Store(path)) as store:  # what a second tab would do
        store.record(number, store.assignments(number)[0]["handle"], "a", "request-of-other-tab")
    page.keyboard.press("b")
    page.wait_for_selector("#trouble:not([hidden])")
    assert "another tab" in page.inner_text("#trouble") and page.get_attribute("#choices button >> nth=0", "aria-pressed") == "true"
    assert answers(path, number)[:2] == ["a", None]
    page.close()


def test_pages_have_names_for_everything_and_enough_contrast(browser, server):
    path, address, _ = server
    [token] = invited(path, 1)
    with opened(browser, f"{address}#{token}") as page:
        page.click("#start")
        ready(page, 1)
        nameless = page.eval_on_selector_all(
            "button, input, video, progress, textarea",
            "all => all.filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML)",
        )
        assert nameless == []
        low = page.evaluate(CONTRAST)
        assert low == [], low


# Texts whose contrast with the ground below them is less than 4.5 (WCAG AA), disabled controls left out.
CONTRAST = """() => {
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const found = numbers(getComputedStyle(element).backgroundColor);
      if (found.length < 4 || found[3] === 1) return found.slice(0, 3);
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("h1, h2, p, span, button:not(:disabled), output, figcaption, summary, label")]
    .filter((e) => e.offsetParent && e.textContent.trim() && !e.classList.contains("hidden-text"))
    .map((e) => { const [a, b] = [light(numbers(getComputedStyle(e).color).slice(0, 3)), light(ground(e))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), e.textContent.trim()]; })
    .filter(([ratio]) => ratio < 4.5);
}"""


def test_the_administrator_sees_results_and_remarks_as_text(browser, server):
    path, address, administrator = server
    _, number = rater(path)
    with contextlib.closing(Store(path)) as store:
        store.record(number, store.assignments(number)[3]["handle"], "a", f"request-of-admins-{number}")
        store.add_note(number, "<img src=x onerror=alert(1)>")
    with opened(browser, f"{address}admin#{administrator}") as page:
        page.wait_for_selector("#raters tr")
        page.wait_for_selector("#results table")
        assert "Rater 0" in page.inner_text("#raters") and "<img" in page.inner_text("#remarks") and "kappa" in page.inner_text("#results")
        assert page.locator("#remarks img").count() == 0
    page = browser.new_page()
    page.goto(f"{address}admin#guess")
    page.wait_for_selector("#trouble:not([hidden])")
    assert page.locator("#raters tr").count() == 0
    page.close()


def test_stages_are_labelled_with_one_click(browser, tmp_path):
    path, _ = make_study(tmp_path, items=4, kind="progress")
    [token] = invited(path, 1)
    with served(tmp_path) as (address, _), opened(browser, f"{address}#{token}", width=375, height=740) as page:
        page.wait_for_selector("#introduction:not([hidden])")
        assert page.is_visible("#introduction .for-progress") and not page.is_visible("#introduction .for-preference")
        page.click("#start")
        ready(page, 1)
        names = page.eval_on_selector_all("#choices button", "all => all.map(one => one.textContent)")
        assert names == ["Nothing", "Reach", "Grasp", "Lift"] and page.evaluate("document.documentElement.scrollWidth") <= 375
        page.click("#choices button:has-text('Grasp')")
        ready(page, 2)
        page.keyboard.press("0")
        ready(page, 3)
        assert answers(path, 1) == ["2", "0", None, None]
