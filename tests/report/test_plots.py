"""What the pictures show is the data."""

import io
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

import sepnet
from sepnet.comparison.significance import by_assignment
from sepnet.errors import SepnetError
from sepnet.report.plots import (
    accuracy_curves,
    confusion_matrix,
    per_class_accuracy,
    receptive_field_growth,
    worst_mistakes,
)
from sepnet.runs.history import Epoch
from tests.report.drawing import (
    BASE,
    CHAMPION,
    GREY,
    NAMES,
    answers,
    evaluation,
    far_seeing,
    history,
    lines,
    photographs,
    pixels,
    saved,
    uneven,
)


def test_curves_are_the_histories() -> None:
    figure = accuracy_curves({"base": [BASE], "champion": [CHAMPION]})
    accuracy, loss = figure.axes
    for name, epochs in (("base", BASE), ("champion", CHAMPION)):
        for axes, label, values in (
            (accuracy, name, [100 * epoch.val_accuracy for epoch in epochs]),
            (accuracy, f"{name}, training", [100 * epoch.accuracy for epoch in epochs]),
            (loss, name, [epoch.val_loss for epoch in epochs]),
            (loss, f"{name}, training", [epoch.loss for epoch in epochs]),
        ):
            line = lines(axes)[label]
            assert line.get_xdata() == pytest.approx(range(1, len(epochs) + 1))
            assert line.get_ydata() == pytest.approx(values)
    words = {text.get_text() for text in accuracy.texts}
    assert words >= {"base 69.87", "champion 80.85", "best of base 70.12"}
    assert accuracy.get_title(loc="left") == "Accuracy on the test images after each epoch, %"


def test_the_first_epoch_above_the_bases_best_is_the_verdicts() -> None:
    accuracy = accuracy_curves({"base": [BASE], "champion": [CHAMPION]}).axes[0]
    verdict = by_assignment(BASE, CHAMPION)
    assert verdict.passed_epoch == 4  # epoch 3 is a tie
    assert lines(accuracy)["first above"].get_xdata() == [4]
    assert lines(accuracy)["first above"].get_ydata() == pytest.approx([72.63])
    assert lines(accuracy)["best of the base"].get_ydata() == pytest.approx([100 * verdict.base_best] * 2)
    assert "epoch 4" in {text.get_text() for text in accuracy.texts}


def test_no_epoch_is_marked_where_none_is_above() -> None:
    accuracy = accuracy_curves({"champion": [CHAMPION], "base": [BASE]}).axes[0]
    assert "first above" not in lines(accuracy)
    assert not any("epoch" in text.get_text() for text in accuracy.texts)


def test_seeds_are_a_mean_in_a_band() -> None:
    low, high = history([0.2, 0.4, 0.5]), history([0.4, 0.8])
    accuracy = accuracy_curves({"net": [low, high]}).axes[0]
    assert lines(accuracy)["net"].get_ydata() == pytest.approx([30, 60])
    (band,) = accuracy.collections
    corners = {(round(x), round(y)) for x, y in np.asarray(band.get_paths()[0].vertices)}
    assert {(1, 20), (1, 40), (2, 40), (2, 80)} <= corners


@pytest.mark.parametrize("seeds", [[], [[]], [BASE, []]])
def test_a_run_without_epochs_is_named(seeds: list[list[Epoch]]) -> None:
    with pytest.raises(SepnetError, match="'mine' has a run without an epoch"):
        accuracy_curves({"base": [BASE], "mine": seeds})


# The assignment's own table for its network; the others as the golden summaries have them.
FIELDS = {
    "base": [3, 5, 6, 10, 14, 16, 24, 32, 36, 44],
    "published": [3, 5, 7, 8, 12, 16, 20, 22, 30, 38, 46, 50, 74],
    "resnet8": [3, 5, 7, 9, 13, 17, 25, 53],
}


def frames(axes: Axes) -> list[tuple[float, float]]:
    assert all(isinstance(patch, Rectangle) for patch in axes.patches)
    return [(patch.get_height(), patch.get_width()) for patch in axes.patches if isinstance(patch, Rectangle)]


@pytest.mark.slow
@pytest.mark.parametrize("network", FIELDS)
def test_frames_and_steps_are_the_receptive_fields(network: str) -> None:
    image, anatomy = photographs(1)[0], sepnet.summary(network)
    above, below = receptive_field_growth(image, {network: anatomy}).axes
    assert sorted(frames(above)) == [(size, size) for size in FIELDS[network]]
    for patch in above.patches:
        assert isinstance(patch, Rectangle)
        assert patch.get_center() == pytest.approx((0, 0))  # unclipped, around the middle of the image
    assert np.array_equal(pixels(above), image.permute(1, 2, 0).numpy())
    assert list(above.images[0].get_extent()) == [-16, 16, 16, -16]
    left, right = above.get_xlim()
    assert left < -FIELDS[network][-1] / 2
    assert right > FIELDS[network][-1] / 2
    steps, reference = below.lines
    assert steps.get_ydata() == pytest.approx([*FIELDS[network], FIELDS[network][-1]])
    for place, size in zip(np.asarray(steps.get_xdata()), FIELDS[network], strict=False):
        layer = anatomy.layers[int(place) - 1]
        assert layer.receptive_field == (size, size)
        assert layer.name == next(one.name for one in anatomy.layers if one.receptive_field == (size, size))
    assert np.asarray(reference.get_ydata()).tolist() == [32, 32]


def test_frames_take_the_colours_of_the_steps() -> None:
    above, below = receptive_field_growth(photographs(1)[0], {"base": sepnet.summary("base")}).axes
    by_size = {patch.get_width(): patch.get_edgecolor() for patch in above.patches if isinstance(patch, Rectangle)}
    (dots,) = below.collections
    for (_, size), colour in zip(np.asarray(dots.get_offsets()), np.asarray(dots.get_facecolor()), strict=True):
        assert by_size[size] == pytest.approx(tuple(colour))


def test_uneven_fields_keep_their_sides_and_grey_images_are_grey() -> None:
    above, below = receptive_field_growth(GREY, {"uneven": uneven((1, 28, 48))}).axes
    assert sorted(frames(above)) == [(1, 7), (5, 7), (32, 54)]
    assert pixels(above).shape == (28, 48, 3)
    assert below.get_ylabel() == "Pixels, longer side"


def test_fields_beyond_the_view_are_named_and_the_image_stays_visible() -> None:
    above, _ = receptive_field_growth(GREY, {"far": far_seeing((1, 28, 48))}).axes
    sizes = [19 + 18 * layer for layer in range(30)]  # a kernel of 7 with dilation 3 adds 18 pixels
    assert sorted(frames(above)) == [(size, size) for size in sizes if size <= 4 * 48]
    assert above.get_xlabel() == "19 to 541 pixels\nnot shown: 199 to 541"
    left, right = above.get_xlim()
    assert right - left <= 4 * 48


def test_class_accuracies_are_sorted_by_the_last_contestant() -> None:
    first, last = evaluation(NAMES, count=1000), evaluation(NAMES, count=1000, seed=3)
    (axes,) = per_class_accuracy({"base": first, "champion": last}).axes
    recalls = {
        name: 100 * row[place] / sum(row) for place, (name, row) in enumerate(zip(NAMES, last.confusion, strict=True))
    }
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(names) == sorted(NAMES)
    assert [recalls[name] for name in names] == sorted(recalls.values(), reverse=True)
    by_label = lines(axes)
    assert by_label[f"champion, {100 * last.accuracy:.2f} on all"].get_xdata() == pytest.approx(
        [recalls[name] for name in names]
    )
    base: Any = by_label[f"base, {100 * first.accuracy:.2f} on all"].get_xdata()
    assert base == pytest.approx([100 * first.per_class[NAMES.index(name)].recall for name in names])  # type: ignore[operator]
    values = [text.get_text() for text in axes.texts]
    assert values == [f"{value:.1f}" for value in (*base, *(recalls[name] for name in names))]


def test_of_100_classes_the_best_and_the_worst_are_drawn_and_it_is_said() -> None:
    many = evaluation(100, count=4000)
    figure = per_class_accuracy({"net": many})
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    order = sorted(many.per_class, key=lambda score: score.recall or 0, reverse=True)
    shown = [score.recall for name in names for score in many.per_class if score.name == name]
    assert shown == [score.recall for score in (*order[:10], *order[-10:])]
    assert "10 best and 10 worst of 100 classes" in figure.get_suptitle()


def test_classes_without_images_have_no_accuracy() -> None:
    few = evaluation(5, count=3)
    (axes,) = per_class_accuracy({"net": few}).axes
    assert [text.get_text() for text in axes.texts].count("–") == sum(not score.images for score in few.per_class) > 0


def test_cells_hold_the_counts_and_mistakes_their_share() -> None:
    counts = evaluation(NAMES, count=2000)
    axes = confusion_matrix("net", counts).axes[0]
    cells = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    for row, values in enumerate(counts.confusion):
        for column, count in enumerate(values):
            assert cells.get((column, row), "0") == str(count)
            share = pixels(axes)[row, column]
            if row == column:
                assert np.ma.is_masked(share)
            else:
                assert share == pytest.approx(100 * count / sum(values))
    assert [label.get_text() for label in axes.get_yticklabels()] == list(NAMES)
    assert [label.get_text() for label in axes.get_xticklabels()] == list(NAMES)
    largest = max(100 * c / sum(v) for i, v in enumerate(counts.confusion) for j, c in enumerate(v) if i != j)
    assert axes.images[0].norm.vmax == pytest.approx(largest)


@pytest.mark.slow
def test_numbers_without_room_are_left_out() -> None:
    assert not confusion_matrix("net", evaluation(100)).axes[0].texts
    assert not confusion_matrix("net", evaluation(20, count=500_000)).axes[0].texts
    assert confusion_matrix("net", evaluation(20)).axes[0].texts


def test_the_most_confident_mistakes_are_shown() -> None:
    logits, labels = answers(10, count=300)
    images = photographs(300)
    figure = worst_mistakes(images, labels, logits, NAMES, "net", count=7)
    probabilities = scipy.special.softmax(logits.double().numpy(), axis=1)
    wrong = [place for place in range(300) if probabilities[place].argmax() != labels[place]]
    expected = sorted(wrong, key=lambda place: -probabilities[place].max())[:7]
    assert len(figure.axes) == 7
    for axes, place in zip(figure.axes, expected, strict=True):
        assert np.array_equal(pixels(axes), images[place].permute(1, 2, 0).numpy())
        answer, confidence = probabilities[place].argmax(), probabilities[place].max()
        (caption,) = axes.texts
        assert caption.get_text() == f"{NAMES[int(labels[place])]} →\n{NAMES[answer]} {100 * confidence:.1f} %"
    assert figure.texts[0].get_text() == "The 7 most confident mistakes of net"


@pytest.mark.slow
def test_images_are_enlarged_by_whole_pixels() -> None:
    figure, _, content = saved("mistakes", "light")
    for axes in figure.axes:
        box = axes.get_window_extent()
        for value in (box.x0, box.y0, box.width, box.height):
            assert value == pytest.approx(round(value), abs=1e-6)
        assert round(box.width) == round(box.height) == 9 * 32
        left, top = round(box.x0), round(figure.bbox.height - box.y1)
        with Image.open(io.BytesIO(content)) as image:
            part = np.asarray(image.convert("RGB").crop((left, top, left + 288, top + 288)))
        assert np.array_equal(part[4::9, 4::9], pixels(axes))  # the middle of every square


def test_confidence_is_never_rounded_up_to_certainty() -> None:
    logits = torch.tensor([[20.0, 0.0], [0.0, 2.0]])
    figure = worst_mistakes(photographs(2), torch.tensor([1, 0]), logits, ("a", "b"))
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["b →\na >99.9 %", "a →\nb 88.1 %"]


def test_no_mistakes_are_said_to_be_none() -> None:
    figure = worst_mistakes(photographs(2), torch.tensor([0, 1]), torch.eye(2), ("a", "b"), "net")
    assert [text.get_text() for text in figure.texts] == ["No mistakes of net on 2 images"]


def test_images_without_answers_are_refused() -> None:
    with pytest.raises(SepnetError, match="3 images, 2 labels and 2 logits"):
        worst_mistakes(photographs(3), torch.tensor([0, 1]), torch.eye(2), ("a", "b"))
    with pytest.raises(SepnetError, match="count is 0"):
        worst_mistakes(photographs(2), torch.tensor([0, 1]), torch.eye(2), ("a", "b"), count=0)
