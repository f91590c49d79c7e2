"""The page of a run: whole in itself, harmless whatever things are called, and alive in a browser."""

from __future__ import annotations

import base64
import io
import re
import zlib

import numpy as np
import pytest
from PIL import Image

from clothseg.data.prepared import resize_labels
from clothseg.evaluation.native import Evaluation, Prediction
from clothseg.palette import palette
from clothseg.reporting.page import LONGEST, Example, Run, page, spread

CLASSES = ("background", "coat", "hat", "<b>tie</b>")
GREEN = (10, 200, 30)
SCRIPT = "<script>document.title = 'taken'</script>"


def prediction(*, height: int = 1000, width: int = 500) -> Prediction:
    """A green photo, its left half a coat; predicted is a hat in the upper half."""
    photo = np.full((height, width, 3), GREEN, np.uint8)
    truth, predicted = np.zeros((2, height, width), np.uint8)
    truth[:, : width // 2] = 1
    predicted[: height // 2] = 2
    return Prediction(photo, truth, predicted, truth, predicted)


def evaluation(confusions: np.ndarray) -> Evaluation:
    return Evaluation(
        confusions.sum(axis=0),
        confusions.sum(axis=0),
        confusions,
        boundary_f=None,
        boundary_photos=None,
        calibration=None,
    )


@pytest.fixture
def runs():
    """Two runs on one photo: the first found some of the coat, the second nothing; nothing is a tie."""
    first = np.array([[[90, 5, 5, 0], [10, 20, 10, 0], [10, 0, 0, 0], [0, 0, 0, 0]]], np.int64)
    second = np.array([[[100, 0, 0, 0], [40, 0, 0, 0], [10, 0, 0, 0], [0, 0, 0, 0]]], np.int64)
    history = {"train/loss": [(1, 2.0), (2, 1.0)], "val/accuracy": [(1, 0.5), (2, float("nan")), (3, 0.75)]}
    return [
        Run("long", "run 1", {"seed": 0, "batch_size": 8}, evaluation(first), history),
        Run("short", "run 2", {"seed": 1, "batch_size": 8}, evaluation(second), {}),
    ]


def html(runs, *, photos: int = 1, name: str = "0001") -> str:
    examples = [Example(name, 0, [prediction()] * len(runs)) for _ in range(photos)]
    return page(runs, examples, class_names=CLASSES, what="val native", photos=1)


def test_photos_are_spread_from_the_best_to_the_worst():
    found = np.array([9, 1, 5, 7, 3])
    confusions = np.zeros((6, 2, 2), np.int64)
    confusions[:5, 1, 1], confusions[:5, 1, 0] = found, 10 - found
    confusions[5, 0, 0] = 10  # nothing but background has no score, and is left out
    own = evaluation(confusions)
    assert spread([own], most=3) == [0, 2, 1]
    assert spread([own], most=1) == [2]
    assert spread([own], most=9) == [0, 3, 2, 4, 1]
    assert spread([own], most=0) == []


def test_the_page_needs_no_other_file_and_no_network(runs):
    text = html(runs)
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", text)
    assert len(addresses) == 1 and addresses[0].startswith("data:image/jpeg;base64,")
    assert not re.search(r"https?://|@import|url\(|\bfetch\(", text)
    assert "default-src 'none'" in text


def test_photos_and_label_maps_lie_in_the_page_small_and_exact(runs):
    text = html(runs[:1])
    photo = Image.open(io.BytesIO(base64.b64decode(re.search(r"data:image/jpeg;base64,([^\"]+)", text)[1])))
    assert photo.size == (LONGEST // 2, LONGEST)
    assert np.abs(np.asarray(photo).astype(int) - GREEN).max() < 5
    maps = [zlib.decompress(base64.b64decode(packed)) for packed in re.findall(r'data-labels="([^"]+)"', text)]
    whole = prediction()
    for packed, labels in zip(maps, (whole.truth, whole.predicted), strict=True):
        shown = np.frombuffer(packed, np.uint8).reshape(LONGEST, LONGEST // 2)
        assert (shown == resize_labels(labels, shown.shape, how="nearest")).all()


def test_scores_stand_beside_all_background_and_differences_beside_scores(runs):
    text = re.sub(r"\s+", " ", html(runs))
    accuracy = re.search(r'<th scope="row">accuracy</th>(.*?)</tr>', text)[1]
    assert re.findall(r">([^<> ][^<]*)</td>", accuracy) == ["0.667", "0.733", "0.667", "-0.067"]
    assert "B − A" in text and "Options that differ" in text
    assert '<th scope="row">seed</th>' in text and '<th scope="row">batch_size</th>' not in text
    alone = html(runs[:1])
    assert "B − A" not in alone and '<th scope="row">batch_size</th>' in alone


def test_curves_are_drawn_of_finite_values_and_left_out_where_there_are_none(runs):
    text = html(runs)
    assert re.findall(r"<title>(epoch [^<]*)</title>", text) == [
        "epoch 1, training, A: 2.0000",
        "epoch 2, training, A: 1.0000",
        "epoch 1, validation, A: 0.5000",
        "epoch 3, validation, A: 0.7500",
    ]
    assert "<svg" not in html(runs[1:])


def test_names_are_only_names(runs):
    bad = Run(SCRIPT, SCRIPT, {SCRIPT: SCRIPT}, runs[0].evaluation, {})
    text = html([bad], name=f'"{SCRIPT}')
    assert text.count("<script") == 2 and SCRIPT not in text and "<b>tie" not in text


def ready(browser) -> None:
    """Waits until the label maps are unpacked."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 30).until(lambda own: own.find_elements("css selector", ".example[data-ready]"))


@pytest.fixture
def opened(browser, runs, tmp_path):
    """The page of the first run, from a file."""
    file = tmp_path / "page.html"
    file.write_text(html(runs[:1], photos=2), encoding="utf-8")
    browser.get(file.as_uri())
    ready(browser)
    yield browser
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def order(browser) -> list[str]:
    return [cell.text for cell in browser.find_elements("css selector", ".sortable tbody th")]


def heading(browser, text: str):
    # The heading that is sorted by has an arrow too.
    every = browser.find_elements("css selector", ".sortable thead button")
    return next(button for button in every if button.text.split()[0] == text)


def test_a_click_on_a_heading_sorts_the_classes(opened):
    assert order(opened) == ["background", "coat", "hat", "<b>tie</b>"]
    for column, once, twice in (
        ("class", ["<b>tie</b>", "background", "coat", "hat"], ["hat", "coat", "background", "<b>tie</b>"]),
        # The tie has no score, whichever way the others go.
        ("IoU", ["background", "coat", "hat", "<b>tie</b>"], ["hat", "coat", "background", "<b>tie</b>"]),
        ("recall", ["background", "coat", "hat", "<b>tie</b>"], ["hat", "coat", "background", "<b>tie</b>"]),
    ):
        heading(opened, column).click()
        assert order(opened) == once, column
        heading(opened, column).click()
        assert order(opened) == twice, column
        (sorted_by,) = opened.find_elements(
            "css selector", '.sortable th[aria-sort="ascending"], .sortable th[aria-sort="descending"]'
        )
        assert sorted_by.text.startswith(column)


def stage(browser):
    """Of the first photo, brought into the window."""
    found = browser.find_element("css selector", ".stage")
    browser.execute_script("arguments[0].scrollIntoView()", found)
    return found


def seen(browser, x: float, y: float) -> np.ndarray:
    """The colour of the first photo at a place, in shares of its sides."""
    picture = Image.open(io.BytesIO(stage(browser).screenshot_as_png)).convert("RGB")
    return np.array(picture.getpixel((int(x * picture.width), int(y * picture.height))))


def test_the_slider_goes_from_the_photo_over_the_truth_to_the_prediction(opened):
    from selenium.webdriver.common.keys import Keys

    colours = palette(len(CLASSES))
    slider = opened.find_element("css selector", ".wipe")
    opened.find_element("id", "opacity").send_keys(Keys.END)
    coat, hat = (0.25, 0.75), (0.75, 0.25)  # places: the truth has a coat here, and there the prediction a hat

    def is_like(place, colour) -> bool:
        return bool(np.abs(seen(opened, *place) - colour).max() < 12)

    slider.send_keys(Keys.HOME)
    assert is_like(coat, GREEN) and is_like(hat, GREEN)
    assert slider.get_attribute("aria-valuetext") == "photo"
    opened.find_element("css selector", '[data-stop="100"]').click()
    assert is_like(coat, colours[1]) and not is_like(hat, colours[2])
    assert slider.get_attribute("aria-valuetext") == "truth"
    slider.send_keys(Keys.END)
    assert is_like(hat, colours[2]) and not is_like(coat, colours[1])
    assert slider.get_attribute("aria-valuetext") == "prediction"
    # Not quite half way back the prediction has the left; the other photo's slider is where it was.
    slider.send_keys(*[Keys.ARROW_LEFT] * 40)
    assert slider.get_attribute("aria-valuetext") == "60 % prediction, the rest truth"
    assert is_like((0.25, 0.25), colours[2]) and not is_like(hat, colours[2])
    assert [each.get_attribute("value") for each in opened.find_elements("css selector", ".wipe")] == ["160", "150"]


def hover(browser, x: float, y: float) -> str:
    from selenium.webdriver import ActionChains

    photo = stage(browser)
    from_centre = int((x - 0.5) * photo.size["width"]), int((y - 0.5) * photo.size["height"])
    ActionChains(browser).move_to_element_with_offset(photo, *from_centre).perform()
    return browser.find_element("css selector", ".tip").text


def test_the_pointer_tells_the_class(opened):
    assert hover(opened, 0.25, 0.25) == "truth: coat\nprediction: hat"
    assert hover(opened, 0.75, 0.75) == "truth: background\nprediction: background"
    assert hover(opened, 0.25, 0.75) == "truth: coat\nprediction: background"


def test_the_page_lives_in_the_sandboxed_frame_of_mlflows_pages(browser, runs, tmp_path):
    (tmp_path / "host.html").write_text(
        '<iframe sandbox="allow-scripts" width="1100" height="900"></iframe><textarea hidden></textarea>', "utf-8"
    )
    browser.get((tmp_path / "host.html").as_uri())
    browser.execute_script(
        "const blob = new Blob([arguments[0]], {type: 'text/html'});"
        "document.querySelector('iframe').src = URL.createObjectURL(blob)",
        html(runs),
    )
    browser.switch_to.frame(browser.find_element("css selector", "iframe"))
    ready(browser)
    assert "2 runs side by side" in browser.find_element("css selector", "h1").text
    assert hover(browser, 0.25, 0.25) == "truth: coat\nprediction A: hat\nprediction B: hat"
    button = browser.find_element("css selector", '.sortable [data-kind="text"]')
    button.click()
    assert order(browser)[0] == "<b>tie</b>"
    browser.switch_to.default_content()
