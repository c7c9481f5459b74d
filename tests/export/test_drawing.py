from xml.etree import ElementTree

import numpy as np
import pytest

from engine.export.drawing import HEIGHT, MARKS, WIDTH, Axis, Line, line_chart, ticks_around

SVG = "{http://www.w3.org/2000/svg}"
X, Y = Axis("epoch", [0.0, 5.0, 10.0]), Axis("accuracy", [50.0, 75.0, 100.0], "%")


def parsed(drawn: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawn.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1))


def texts(chart: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in chart.iter(f"{SVG}text")]


def corners(path: str) -> np.ndarray:
    """Read a path of straight lines: x and y of each of its points."""
    return np.array([[float(number) for number in point.split(",")] for point in path.removeprefix("M").split("L")])


def only_path(chart: ElementTree.Element, colour: str) -> np.ndarray:
    (path,) = [path.get("d", "") for path in chart.iter(f"{SVG}path") if path.get("stroke") == colour][1:]
    return corners(path)


def test_points_are_placed_in_proportion():
    points = [(0, 50), (5, 75), (10, 100), (10, 50)]
    chart = parsed(line_chart([Line("training", points, "red")], X, Y, "A chart."))
    placed = only_path(chart, "red")  # after the swatch of the legend
    left, bottom = placed[0]
    right, top = placed[2]
    assert 0 < left < right < WIDTH and 0 < top < bottom < HEIGHT
    assert placed[1] == pytest.approx([(left + right) / 2, (top + bottom) / 2], abs=0.11)
    assert placed[3].tolist() == [right, bottom]


def test_axes_and_legend_are_written_out():
    chart = parsed(line_chart([Line("one", [(0, 50)]), Line("two", [(10, 100)])], X, Y, "A chart."))
    assert texts(chart) == ["one", "two", "0", "5", "10", "50%", "75%", "100%", "epoch", "accuracy"]
    assert chart.get("aria-label") == "A chart."


def test_marks_say_their_values_and_lines_may_be_left_out():
    marked = Line("best", [(4, 80), (6, 81.25)], "red", dash="none", mark="star")
    chart = parsed(line_chart([marked], X, Y, "A chart."))
    stars = [path for path in chart.iter(f"{SVG}path") if path.get("d") == MARKS["star"]]
    assert [star.findtext(f"{SVG}title") for star in stars] == [None, "best: 4, 80%", "best: 6, 81.25%"]
    assert {star.get("fill") for star in stars} == {"red"}
    assert not [path for path in chart.iter(f"{SVG}path") if path.get("stroke") == "red"]


def test_whiskers_reach_from_the_lowest_to_the_highest():
    line = Line("shares", [(5, 75)], "red", dash="none", whiskers=[(50, 100)])
    chart = parsed(line_chart([line, Line("corners", [(0, 50), (10, 100)], "blue")], X, Y, "A chart."))
    (whisker,) = [path.get("d", "") for path in chart.iter(f"{SVG}path") if path.get("stroke") == "red"]
    start, end = whisker.removeprefix("M").split("V")
    (left, bottom), (right, top) = only_path(chart, "blue")
    assert [float(number) for number in (*start.split(","), end)] == pytest.approx([(left + right) / 2, bottom, top])


def test_a_long_legend_takes_more_lines_and_leaves_the_chart_less():
    few, many = (
        parsed(
            line_chart(
                [Line(f"a line of a long name {number}", [(0, 100)], "red") for number in range(count)], X, Y, "A"
            )
        )
        for count in (1, 4)
    )
    tops = [
        min(
            corners(path.get("d", "").split("H")[0])[0, 1]
            for path in chart.iter(f"{SVG}path")
            if "H" in path.get("d", "")
        )
        for chart in (few, many)
    ]
    assert tops[1] == tops[0] + 20
    for text in many.iter(f"{SVG}text"):
        assert 0 <= float(text.get("x", "nan")) <= WIDTH


def test_wide_ticks_have_their_room():
    starts = [
        only_path(parsed(line_chart([Line("a", [(0, 0)], "red")], X, Axis("y", [0.0, top]), "A")), "red")[0, 0]
        for top in (1.0, 1_000_000.0)
    ]
    assert starts[1] > starts[0] + 40


def test_names_are_text_whatever_they_are():
    hostile = '<script>alert(1)</script>"&'
    line = Line(hostile, [(1, 60)], colour='red" onload="alert(1)', mark="circle")
    chart = parsed(line_chart([line], Axis(hostile, [0.0, 2.0], "<b>"), Axis(hostile, [50.0, 75.0]), hostile))
    assert texts(chart).count(hostile) == 3
    assert chart.get("aria-label") == hostile
    assert {element.tag for element in chart.iter()} == {f"{SVG}{tag}" for tag in ("svg", "path", "text", "title")}
    assert not [element for element in chart.iter() if element.get("onload")]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([0, 2.3], [0, 0.5, 1, 1.5, 2, 2.5]),
        ([98.54, 100], [98.5, 99, 99.5, 100]),
        ([0, 10], [0, 2, 4, 6, 8, 10]),
        ([-3, 12], [-5, 0, 5, 10, 15]),
        ([], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_ticks_are_round(values, ticks):
    assert ticks_around(values) == pytest.approx(ticks)


def test_ticks_enclose_any_values_and_are_few():
    random_state = np.random.default_rng(0)
    for low, span in zip(random_state.normal(0, 100, 500), 10.0 ** random_state.uniform(-6, 6, 500), strict=True):
        ticks = ticks_around([low, low + span])
        tolerance = 1e-6 * span
        assert 2 <= len(ticks) <= 7
        assert ticks[0] <= low + tolerance and low + span <= ticks[-1] + tolerance
        steps = np.diff(ticks)
        assert steps == pytest.approx(steps[0], rel=1e-3)
        assert ticks[1] > low - tolerance and ticks[-2] < low + span + tolerance, "a tick too many"


@pytest.mark.parametrize("value", [0.0, 1.0, -7.5, 1e-9, 1e12])
def test_one_value_has_a_scale_too(value):
    ticks = ticks_around([value])
    assert ticks[0] < value < ticks[-1]


def test_epochs_are_counted_in_whole_numbers():
    assert ticks_around([0, 2], least_step=1.0) == [0, 1, 2]
    assert ticks_around([0, 1], least_step=1.0) == [0, 1]
