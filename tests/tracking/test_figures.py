from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.legend import Legend

from clothseg.data.labels import CLASS_NAMES, IGNORE
from clothseg.evaluation.calibration import CalibrationCounts
from clothseg.palette import PALETTE
from clothseg.tracking import figures

SKIN, DRESS, HAT = (CLASS_NAMES.index(name) for name in ("skin", "dress", "hat"))
PAIR = {"class_names": CLASS_NAMES, "names": ["a", "b"]}


@pytest.fixture
def photos():
    return np.random.default_rng(0).integers(0, 256, (2, 32, 20, 3), dtype=np.uint8)


@pytest.fixture
def labels():
    """The first photo shows a dress and, smaller, skin; the second is empty."""
    labels = np.zeros((2, 32, 20), np.uint8)
    labels[0, 8:24, 4:16] = DRESS
    labels[0, 2:6, 8:12] = SKIN
    return labels


def legends(figure):
    """Texts of each legend, in drawing order."""
    return [[text.get_text() for text in legend.get_texts()] for legend in figure.findobj(Legend)]


def texts(figure):
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


def size(figure, tmp_path):
    path = tmp_path / "figure.png"
    figure.savefig(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    return path.stat().st_size


def everything(photos, labels):
    numbers = np.arange(len(CLASS_NAMES))
    history = {"train/loss": [2.0, 1.0], "val/loss": [2.0], "val/accuracy": [0.5, float("nan")], "val/miou": []}
    return {
        "sample_sheet": figures.sample_sheet(photos, labels, **PAIR),
        "augmentation_sheet": figures.augmentation_sheet(photos, labels, titles="ab", class_names=CLASS_NAMES),
        "augmentation_gallery": figures.augmentation_gallery(
            [photos, photos], [labels, labels], names="ab", titles=["original", "pass 1"], class_names=CLASS_NAMES
        ),
        "predictions": figures.predictions(photos, labels, labels[::-1], title="title", mistakes=True, **PAIR),
        "predictions_jet": figures.predictions_jet(photos, labels, labels, title="Prediction After 20 Epochs"),
        "duplicate_pairs": figures.duplicate_pairs(photos, photos, captions=["a / b", "c / d"]),
        "curves": figures.curves(history, phases=[("frozen", 1), ("tuned", 3)], all_background_accuracy=0.7),
        "class_iou": figures.class_iou(numbers / 58, pixels=numbers, class_names=CLASS_NAMES, title="title"),
        "confusion": figures.confusion(np.diag(numbers), class_names=CLASS_NAMES, most=20),
        "class_frequencies": figures.class_frequencies(numbers, numbers, class_names=CLASS_NAMES),
    }


def test_every_figure_becomes_a_small_png_with_nothing_cut_off(photos, labels, tmp_path):
    for name, figure in everything(photos, labels).items():
        assert 1_000 < size(figure, tmp_path) < 1_000_000, name
        drawn, page = figure.get_tightbbox(), figure.get_size_inches()
        assert min(drawn.x0, drawn.y0) > -0.01 and drawn.x1 < page[0] + 0.01 and drawn.y1 < page[1] + 0.01, name


def test_importing_the_figures_brings_neither_pyplot_nor_a_framework():
    code = "import sys, clothseg.tracking.figures; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "matplotlib.figure" in loaded
    assert not {"matplotlib.pyplot", "tensorflow", "keras", "mlflow"} & set(loaded)


def test_a_sample_sheet_names_exactly_the_clothes_in_each_picture_largest_first(photos, labels):
    figure = figures.sample_sheet(photos, labels, **PAIR)
    assert legends(figure) == [["dress", "skin"]]
    assert {"a", "b", "background only"} <= texts(figure)


def test_legend_swatches_have_the_colours_of_the_label_map(photos, labels):
    figure = figures.predictions(
        photos[:1], labels[:1], labels[:1], class_names=CLASS_NAMES, title="", names=["a"], mistakes=False
    )
    (legend,) = figure.findobj(Legend)
    swatches = [np.rint(np.multiply(patch.get_facecolor()[:3], 255)) for patch in legend.get_patches()]
    np.testing.assert_array_equal(swatches, PALETTE[[0, DRESS, SKIN]])
    drawn = figure.axes[2].images[0].get_array()
    np.testing.assert_array_equal(drawn, PALETTE[labels[0]])


def test_an_overlay_leaves_the_background_grey_and_tints_the_clothes(photos, labels):
    overlay = figures.sample_sheet(photos, labels, **PAIR).axes[1].images[0].get_array()
    colourful = np.ptp(overlay.astype(int), axis=-1) > 0
    np.testing.assert_array_equal(colourful, labels[0] > 0)


def test_float_photos_are_taken_as_0_to_255(photos, labels):
    first = figures.sample_sheet(photos, labels, **PAIR).axes[0].images[0].get_array()
    second = figures.sample_sheet(photos.astype(np.float32), labels, **PAIR).axes[0].images[0].get_array()
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_sheets_take_any_number_of_photos_also_of_different_sizes(count):
    photos = [np.full((20 + 5 * index, 30, 3), 9, np.uint8) for index in range(count)]
    labels = [np.full(photo.shape[:2], index, np.uint8) for index, photo in enumerate(photos)]
    names = [f"photo {index}" for index in range(count)]
    for figure in (
        figures.sample_sheet(photos, labels, class_names=CLASS_NAMES, names=names),
        figures.augmentation_sheet(photos, labels, titles=names, class_names=CLASS_NAMES),
        figures.predictions(photos, labels, labels, class_names=CLASS_NAMES, title="", names=names, mistakes=False),
        figures.duplicate_pairs(photos, photos, captions=names),
    ):
        assert set(names) <= texts(figure)


def test_predictions_stand_beside_photo_and_truth_with_iou_and_invented_classes(photos, labels):
    guess = labels.copy()
    guess[0, 8:16, 4:16] = HAT  # half of the dress
    figure = figures.predictions(photos, labels, guess, title="epoch 3", mistakes=False, **PAIR)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["Actual Image", "Ground Truth", "Prediction"]
    assert legends(figure) == [["background 1.00", "dress 0.50", "skin 1.00"], ["hat"], ["background 1.00"]]
    assert figure.get_suptitle() == "epoch 3"


def test_mistakes_are_coloured_by_their_kind():
    label, guess = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    label[1:] = DRESS
    label[3] = IGNORE
    guess[0, 0], guess[1, :2] = DRESS, DRESS
    guess[1, 2] = HAT
    figure = figures.predictions(
        [np.zeros((4, 4, 3))], [label], [guess], class_names=CLASS_NAMES, title="t", names=["a"], mistakes=True
    )
    picture = figure.axes[3].images[0].get_array()
    kinds = {name: tuple(np.rint(255 * np.array(to_rgb(colour)))) for name, colour in figures.MISTAKES.items()}
    found = [[next((name for name, c in kinds.items() if tuple(pixel) == c), "") for pixel in row] for row in picture]
    missed, invented, other = figures.MISTAKES
    assert found == [[invented, "", "", ""], ["", "", other, missed], [missed] * 4, [""] * 4]
    assert {missed, invented, other} <= texts(figure)


def test_reliability_shows_the_error_and_every_bin_that_has_pixels():
    counts = CalibrationCounts()
    counts.add(np.log([[0.62, 0.38], [0.64, 0.36], [0.98, 0.02]]), np.array([0, 1, 0], np.uint8))
    figure = figures.reliability(counts.result())
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.5, 1]
    assert figure.get_suptitle() == f"Calibration: expected error {counts.result().error:.3f}"


def test_a_legend_with_many_classes_stays_within_its_row():
    labels = np.arange(59, dtype=np.uint8).repeat(20).reshape(1, 59, 20)
    photos = np.zeros((1, 59, 20, 3), np.uint8)
    figure = figures.predictions(
        photos, labels, 58 - labels, class_names=CLASS_NAMES, title="t", names=["a"], mistakes=False
    )
    figure.canvas.draw()
    (legend,) = figure.findobj(Legend)
    assert len(legend.get_texts()) == 59
    box = legend.get_window_extent()
    assert box.y0 >= 0 and box.x1 <= figure.bbox.x1


def test_jet_predictions_are_drawn_as_in_the_article(photos, labels):
    title = "Prediction After 40 Epochs (By Fine-tuning from 21th Epoch)"
    figure = figures.predictions_jet(photos, labels, labels[::-1], title=title)
    assert [axes.get_title() for axes in figure.axes] == ["Prediction", "Ground Truth", "Actual Image"] * 2
    prediction, truth, photo = (axes.images[0] for axes in figure.axes[:3])
    assert (prediction.get_cmap().name, *prediction.get_clim()) == ("jet", 0, 58)
    np.testing.assert_array_equal(prediction.get_array(), labels[1])
    np.testing.assert_array_equal(truth.get_array(), labels[0])
    np.testing.assert_array_equal(photo.get_array(), photos[0])
    (heading,) = figure.texts
    assert (heading.get_color(), heading.get_fontsize(), heading.get_text()) == ("red", 20, title)


def test_no_duplicates_are_said_in_words():
    assert "Near-duplicate photos: none found" in texts(figures.duplicate_pairs([], [], captions=[]))


def line(axes, label):
    (found,) = (line for line in axes.lines if line.get_label().startswith(label))
    return found


def test_curves_draw_each_metric_in_its_panel_with_epochs_from_one():
    history = {
        "train/loss": [3, 2, 1],
        "val/loss": [4, 3],
        "train/accuracy": [0.5, 0.6, 0.7],
        "val/miou": [0.1, float("nan"), 0.3],
        "val/clothing_miou": [0.05, 0.06, 0.04],
    }
    figure = figures.curves(history, phases=[("frozen", 1), ("fine-tuning", 3)], all_background_accuracy=0.765)
    loss, accuracy, miou = figure.axes
    np.testing.assert_array_equal(line(loss, "validation").get_xydata(), [[1, 4], [2, 3]])
    assert line(loss, "training").get_label() == "training (best 1.000, epoch 3)"
    np.testing.assert_array_equal(line(miou, "validation (").get_ydata(), [0.1, np.nan, 0.3])
    assert line(miou, "validation, clothing only").get_label().endswith("(best 0.060, epoch 2)")
    assert set(line(accuracy, "all background: 0.765").get_ydata()) == {0.765}


def test_a_line_stands_where_each_later_phase_starts():
    phases = [("frozen", 1), ("fine-tuning", 3), ("slow", 6)]
    figure = figures.curves({"train/loss": [1.0] * 7}, phases=phases, all_background_accuracy=None)
    for panel in figure.axes:
        assert set(line(panel, "_fine-tuning").get_xdata()) == {2.5}
        assert set(line(panel, "_slow").get_xdata()) == {5.5}
        assert [text.get_text() for text in panel.texts if text.get_rotation()] == ["fine-tuning", "slow"]


@pytest.mark.parametrize("history", [{}, {"train/loss": [1.0], "val/loss": [float("nan")]}])
def test_curves_can_be_drawn_from_the_first_epoch_on(history, tmp_path):
    figure = figures.curves(history, phases=[("frozen", 1)], all_background_accuracy=0.7)
    assert "no values yet" in texts(figure)
    assert size(figure, tmp_path) > 1_000


def bars(axes):
    return {tick.get_text(): bar.get_width() for tick, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)}


def test_absent_classes_are_no_bars_and_count_in_no_mean():
    iou = np.array([0.9, np.nan, 0.2, 0.4, np.nan])
    names = ["background", "clogs", "hat", "dress", "ring"]
    figure = figures.class_iou(iou, pixels=[80, 0, 0, 15, 0], class_names=names, title="validation")
    (axes,) = figure.axes
    assert list(bars(axes).items()) == [("background", 0.9), ("dress", 0.4), ("hat", 0.2)]
    assert legends(figure) == [["mIoU 0.500", "clothing mIoU 0.300"]]
    assert "2 of 5 classes are absent and left out of the means: clogs, ring" in texts(figure)
    assert "only predicted" in texts(figure)


def test_iou_without_any_class_is_said_in_words():
    figure = figures.class_iou([np.nan, np.nan], pixels=[0, 0], class_names=["background", "hat"], title="")
    assert "no class is present" in texts(figure)


def test_frequencies_are_shares_of_pixels_beside_counts_of_photos():
    figure = figures.class_frequencies([70, 0, 10, 20], [5, 0, 4, 2], class_names=["background", "bra", "hat", "coat"])
    left, right = figure.axes
    assert bars(left) == pytest.approx({"background": 70, "coat": 20, "hat": 10})
    assert [bar.get_width() for bar in right.patches] == [5, 2, 4]
    assert left.get_xscale() == "log"
    assert "1 of 4 classes are absent: bra" in texts(figure)


def test_confusion_rows_are_the_truth_and_sum_to_one():
    matrix = np.array([[90, 10, 0, 0], [5, 5, 5, 5], [0, 0, 0, 0], [0, 1, 1, 0]])
    figure = figures.confusion(matrix, class_names=["background", "coat", "bra", "hat"], most=2)
    axes = figure.axes[0]
    table = axes.images[0].get_array()
    np.testing.assert_allclose(table, [[0.9, 0.1, 0], [0.25, 0.25, 0.5], [0, 0.5, 0.5]])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["background", "coat", "other"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["background", "coat", "other"]


def test_confusion_leaves_out_what_is_neither_true_nor_predicted():
    matrix = np.diag([3, 0, 2])
    axes = figures.confusion(matrix, class_names=["background", "bra", "hat"], most=3).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["background", "hat"]
    np.testing.assert_array_equal(axes.images[0].get_array(), np.eye(2))
