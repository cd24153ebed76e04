"""The page in Chromium: sliders, filters, the keyboard, accessibility, and nothing but the page is loaded.

It drives an installed Chromium. `TF_GRADCAM_AXE` may name the file axe.min.js of the npm package axe-core.
"""

import base64
import os
import pathlib
import shutil

import cv2
import numpy as np
import pytest
from report_rows import read, write_picture, write_run

import tf_gradcam

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = os.environ.get("TF_GRADCAM_AXE", "node_modules/axe-core/axe.min.js")
LABEL = '<img src=x onerror="window.hacked = 1">'
LABELS = [LABEL, "bee", "cat"]

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A page of 24 images in three classes, one of them for two, and an error."""
    folder = tmp_path_factory.mktemp("report")
    photo = write_picture(folder / "grey.png", (60, 80), color=(128, 128, 128))
    items = [read(f"image {number}", photo if number < 2 else "", (60, 80)) for number in range(24)]
    items.append(read("broken", error="it is no photograph"))
    maps = np.ones((24, 2, 2)) * np.linspace(0.1, 1, 24)[:, None, None]
    maps[0] = [[0, 1], [0, 1]]  # Half of it is above one half.
    maps[2] = 0
    classes = [number % 3 for number in range(24)]
    shares = np.linspace(0.02, 0.94, 24)  # The first eight, below a third, are not the model's first class.
    outputs = np.tile((1 - shares[:, None]) / 2, 3)
    outputs[np.arange(24), classes] = shares
    write_run(folder / "rows", items, maps, classes, outputs, labels=LABELS)
    return tf_gradcam.write_report(folder / "rows")


@pytest.fixture(scope="module")
def chromium():
    # Chromium has no sandbox for root, as in a container.
    arguments = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, path):
    """Open the page; at the end, nothing was logged, and nothing else was loaded."""
    contexts, problems = [], []

    def note(request):
        if request.url != path.as_uri() and not request.url.startswith("data:image/jpeg;"):
            problems.append(request.url)

    def open_it(width=1280, height=900, **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", note)
        page.goto(path.as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert problems == []


def shown(page):
    return page.locator("article[data-state]:visible").count()


def set_value(page, name, value):
    page.locator(f"#{name}").evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", str(value)
    )
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def pixels(page, name):
    """Return the canvas in the card of an image, RGBA of `(H, W, 4)`."""
    canvas = (
        page.locator("article[data-state]").filter(has=page.get_by_text(name, exact=True)).locator("canvas")
    )
    canvas.scroll_into_view_if_needed()
    page.wait_for_function("(canvas) => canvas.isDrawn", arg=canvas.element_handle())
    data = base64.b64decode(canvas.evaluate("(canvas) => canvas.toDataURL()").partition(",")[2])
    return cv2.cvtColor(
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA
    )


def test_the_sliders_draw_the_contour_and_the_colours(open_page):
    page = open_page()
    set_value(page, "opacity", 0)
    set_value(page, "threshold", 50)
    contour = pixels(page, "image 0")[..., 3] > 0
    height, width = contour.shape
    assert 0.003 < contour.mean() < 0.1
    columns = np.nonzero(contour)[1]
    assert columns.mean() == pytest.approx(width / 2, abs=1)  # where the map passes one half
    assert np.ptp(columns) < width / 20
    set_value(page, "threshold", 90)
    assert np.nonzero(pixels(page, "image 0")[..., 3])[1].mean() > width * 0.6
    set_value(page, "threshold", 0)
    assert not pixels(page, "image 0").any()
    assert page.locator("output[for=threshold]").text_content() == "off"
    set_value(page, "opacity", 100)
    colors = pixels(page, "image 0")
    assert colors[height // 2, width - 1, 3] == 255
    assert colors[height // 2, width - 1, 0] > 200  # yellow, the end of the scale
    assert colors[height // 2, 0, 3] < 10
    set_value(page, "opacity", 40)
    assert pixels(page, "image 0")[height // 2, width - 1, 3] == pytest.approx(102, abs=1)


def test_all_maps_have_one_scale_unless_asked(open_page):
    page = open_page()
    set_value(page, "threshold", 0)
    set_value(page, "opacity", 100)
    weak, strong, blank = (pixels(page, f"image {number}") for number in (1, 23, 2))
    assert weak[..., 3].max() < 100 < strong[..., 3].min()
    assert not blank.any()
    page.locator("#own").check()
    assert page.locator("#full").text_content() == "its maximum"
    own, still_blank = (pixels(page, f"image {number}") for number in (1, 2))
    np.testing.assert_allclose(own.astype(int), np.broadcast_to(strong[:1, :1], own.shape), atol=2)
    assert not still_blank.any()


def test_the_untouched_photograph_is_beside_its_copy_below_the_map(open_page):
    page = open_page()
    pixels(page, "image 1")
    card = page.locator("article[data-state]").filter(has=page.get_by_text("image 1", exact=True))
    first, second = card.locator("img").all()
    assert first.get_attribute("src") == second.get_attribute("src")
    assert second.get_attribute("alt") == ""
    assert page.locator("article:not([data-state]) canvas").count() == 3  # one image, two classes


def test_filters_and_orders(open_page):
    page = open_page()
    assert shown(page) == 25
    page.locator("#class").select_option(label="bee")
    assert shown(page) == 8
    assert page.locator("#count").text_content() == "8 of 25 images"
    page.locator("#state").select_option("other")
    names = page.locator("article[data-state]:visible h3").all_text_contents()
    assert names == ["image 1", "image 4", "image 7"]
    page.locator("#reset").click()
    assert shown(page) == 25
    page.locator("#state").select_option("error")
    assert page.locator("article[data-state]:visible h3").all_text_contents() == ["broken"]
    page.locator("#state").select_option("explained")
    assert shown(page) == 24
    page.locator("#from").fill("0.5")
    assert shown(page) == 12
    page.locator("#to").fill("0.7")
    scores = page.locator("article[data-state]:visible").evaluate_all(
        "(all) => all.map((each) => each.dataset.score)"
    )
    assert [0.5 <= float(score) <= 0.7 for score in scores] == [True] * 6
    page.locator("#reset").click()
    set_value(page, "probability", 10)
    assert shown(page) == 3
    page.locator("#reset").click()
    page.locator("#order").select_option("score")
    names = page.locator("article[data-state] h3").all_text_contents()
    assert (names[0], names[-2:]) == ("image 23", ["image 0", "broken"])
    page.locator("#order").select_option("name")
    assert page.locator("article[data-state] h3").all_text_contents()[:4] == [
        "broken", "image 0", "image 1", "image 2",
    ]  # fmt: skip


def test_a_label_that_looks_like_html_is_text(open_page):
    page = open_page()
    pixels(page, "image 0")
    assert page.evaluate("window.hacked") is None
    assert page.locator("[onerror]").count() == 0
    assert page.locator("#class option").all_text_contents()[1] == LABEL
    assert page.locator("article[data-state] .class b").first.text_content() == LABEL


def focused(page):
    return page.evaluate(
        "document.activeElement.id || document.activeElement.className || document.activeElement.localName"
    )


def test_the_keyboard_suffices(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert focused(page) == "skip"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    order = []
    while "reset" not in order:
        page.keyboard.press("Tab")
        order.append(focused(page))
        assert len(order) < 20
    assert order == [
        "opacity",
        "threshold",
        "own",
        "class",
        "state",
        "probability",
        "from",
        "to",
        "order",
        "reset",
    ]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1
    page.locator("#state").focus()
    page.keyboard.type("with")
    assert shown(page) == 1
    page.locator("#reset").focus()
    page.keyboard.press("Space")
    assert shown(page) == 25
    page.locator("#probability").focus()
    page.keyboard.press("Home")
    assert shown(page) == 0
    page.keyboard.press("End")
    page.locator("#own").focus()
    page.keyboard.press("Space")
    assert page.locator("#own").is_checked()
    page.locator("#opacity").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#opacity").get_attribute("aria-valuetext") == "69 %"


def test_every_control_is_named_and_text_is_legible(open_page):
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        assert page.locator("html").get_attribute("lang") == "en"
        for name in ("h1", "main", "header"):
            assert page.locator(name).count() == 1
        levels = page.locator("h1, h2, h3").evaluate_all("(all) => all.map((each) => +each.localName[1])")
        assert max(np.diff(levels)) <= 1
        assert page.locator("img:not([alt]), canvas:not([aria-label]), nav:not([aria-label])").count() == 0
        controls = page.locator("input, select, button, summary, a, [tabindex]")
        names = "(all) => all.map((each) => each.labels?.length || each.ariaLabel || each.textContent.trim())"
        assert all(controls.evaluate_all(names))
        assert controls.count() > 40
        assert page.evaluate(_CONTRASTS) >= 4.5


# The lowest contrast of a text with what is behind it, by the definition of WCAG 2.
_CONTRASTS = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => numbers(color).slice(0, 3).map((value) => value / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, channel) => sum + value * [0.2126, 0.7152, 0.0722][channel], 0);
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return (numbers(color)[3] ?? 1) === 1 ? color : behind(element.parentElement);
  };
  const hasText = (each) => [...each.childNodes].some((node) => node.nodeType == 3 && node.data.trim());
  const all = [...document.querySelectorAll("body *")];
  const texts = all.filter((element) => element.checkVisibility() && hasText(element));
  return Math.min(...texts.map((element) => {
    const values = [getComputedStyle(element).color, behind(element)].map(luminance);
    return (Math.max(...values) + 0.05) / (Math.min(...values) + 0.05);
  }));
}"""


@pytest.mark.skipif(not pathlib.Path(AXE).exists(), reason="axe-core is not installed; see TF_GRADCAM_AXE")
def test_axe_finds_nothing(open_page):
    for scheme, width in (("light", 1280), ("dark", 360)):
        page = open_page(width=width, color_scheme=scheme)
        page.evaluate(pathlib.Path(AXE).read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")
        assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
        assert len(found["passes"]) > 20


def test_it_fits_a_narrow_screen_and_prints_every_map(open_page):
    page = open_page(width=360, height=640)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    # Photographs that load only when they are seen would be missing in print.
    assert page.evaluate("[...document.images].every((each) => each.complete && each.naturalWidth)")
    drawn = "() => [...document.querySelectorAll('canvas')].filter((each) => each.isDrawn).length"
    assert page.evaluate(drawn) < 10  # Only those near the screen take memory.
    data = page.pdf(format="A4", print_background=True)
    assert data.startswith(b"%PDF")
    assert page.evaluate(drawn) == 24 + 3 + 3
    page.emulate_media(media="print")
    assert not page.locator("#reset").is_visible()
    assert not page.locator("nav").is_visible()


def test_without_javascript_photographs_and_text_are_shown(open_page):
    page = open_page(java_script_enabled=False)
    assert page.get_by_text("need JavaScript").is_visible()
    assert not page.locator(".controls").is_visible()
    assert page.locator("article h3").first.text_content() == "image 0"
