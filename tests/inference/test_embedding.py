from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness

from engine.base.errors import LoupeError
from engine.base.progress import run_to_end
from engine.inference.embedding import Placing, load_places, pca, save_places, tsne

DIGITS = load_digits().data[:360].astype(np.float32)


def placed(features: np.ndarray) -> tuple[np.ndarray, list[Placing]]:
    told: list[Placing] = []
    return run_to_end(tsne(features), told.append), told


def random(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 2, (count, width)).astype(np.float32)


# Principal components

# So many that they are found by a randomized search.
LARGE = random(1000, 600) * np.float32(50) * np.float32(0.7) ** np.arange(600, dtype=np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("features", [DIGITS, random(40, 3), random(5, 200), LARGE, 1e4 + random(50, 2)], ids=np.shape)
def test_places_are_what_the_singular_values_say(features: np.ndarray) -> None:
    centred = features.astype(np.float64) - features.astype(np.float64).mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * values[:2]
    places, share = pca(features)
    assert (places.dtype, places.shape) == (np.float32, (len(features), 2))
    signs = np.sign((places * expected).sum(axis=0))
    np.testing.assert_allclose(places * signs, expected, atol=2e-3 * np.abs(expected).max())
    assert share == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), rel=1e-3)


@pytest.mark.slow
def test_places_do_not_change_from_one_time_to_the_next() -> None:
    (first, share), (again, same) = pca(LARGE), pca(LARGE.copy())
    np.testing.assert_array_equal(first, again)
    assert share == same


DEGENERATE: dict[str, tuple[np.ndarray, float]] = {
    "no image": (random(0, 5), 0.0),
    "one image": (random(1, 5), 0.0),
    "images that are alike": (np.full((20, 5), 0.1, np.float32), 0.0),
    "two images": (random(2, 5), 1.0),
    "one feature": (random(30, 1), 1.0),
    "one feature that varies": (np.hstack([random(30, 1), np.full((30, 4), 0.1, np.float32)]), 1.0),
}


@pytest.mark.parametrize("what", DEGENERATE)
def test_where_nothing_varies_places_are_zeros(what: str) -> None:
    features, share = DEGENERATE[what]
    places, found = pca(features)
    assert places.shape == (len(features), 2)
    assert found == pytest.approx(share, abs=1e-6)
    assert not places[:, 1].any()
    if share:  # the distances along one line are kept
        largest = np.linalg.norm(features[:, None] - features[None], axis=2).max()
        assert np.ptp(places[:, 0]) == pytest.approx(largest, rel=1e-4)
    else:
        assert not places.any()


# t-SNE


@pytest.mark.slow
def test_neighbours_stay_neighbours() -> None:
    places, told = placed(DIGITS)
    assert (places.dtype, places.shape) == (np.float32, (360, 2))
    kept = trustworthiness(DIGITS, places, n_neighbors=10)
    assert kept > 0.97
    assert kept > trustworthiness(DIGITS, pca(DIGITS)[0], n_neighbors=10) + 0.05
    assert [step.done for step in told] == list(range(0, 751, 25))
    assert {step.total for step in told} == {750}


# Of a thousand images neighbours are searched for approximately.
@pytest.mark.slow
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.sweep)])
def test_the_same_features_are_placed_alike(count: int) -> None:
    features = load_digits().data[:count].astype(np.float32)
    np.testing.assert_array_equal(placed(features)[0], placed(features.copy())[0])


@pytest.mark.slow
def test_progress_comes_before_the_first_work_and_closing_ends_it() -> None:
    # Of what is no number no work can begin.
    steps = tsne(np.full((10, 3), np.nan, np.float32))
    assert next(steps) == Placing(0, 750)
    with pytest.raises(LoupeError, match="its training has diverged"):
        next(steps)
    steps = tsne(DIGITS)
    assert [next(steps).done for _ in range(4)] == [0, 25, 50, 75]
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_few_images_are_placed_by_their_components(count: int) -> None:
    places, told = placed(random(count, 6))
    np.testing.assert_array_equal(places, pca(random(count, 6))[0])
    assert told == [Placing(0, 750), Placing(750, 750)]


@pytest.mark.parametrize("width", [1, 2, 70])
@pytest.mark.parametrize("count", [4, 5, 10, 91])
def test_few_images_and_copies_have_places(count: int, width: int) -> None:
    features = random(count, width)
    features[: count // 2] = features[0]
    places, told = placed(features)
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    assert (places.std(axis=0) > 0).all()
    assert told[-1] == Placing(750, 750)


def test_images_that_are_all_alike_are_in_one_place() -> None:
    places, told = placed(np.full((50, 8), 0.1, np.float32))
    np.testing.assert_array_equal(places, np.zeros((50, 2), np.float32))
    assert told[-1] == Placing(750, 750)


# Kept in a file


def test_places_come_back_as_they_were_saved(tmp_path: Path) -> None:
    places = random(100, 2)
    save_places(tmp_path / "places.npz", random(3, 2), "first")
    save_places(tmp_path / "places.npz", places, "of these weights")
    loaded = load_places(tmp_path / "places.npz", "of these weights")
    assert loaded is not None
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, places)
    assert [path.name for path in tmp_path.iterdir()] == ["places.npz"]


def test_places_of_another_key_or_of_none_are_not_there(tmp_path: Path) -> None:
    save_places(tmp_path / "places.npz", random(10, 2), "first")
    assert load_places(tmp_path / "places.npz", "second") is None
    assert load_places(tmp_path / "other.npz", "first") is None


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("places"),
    "a flipped byte": lambda path: path.write_bytes(bytes(b ^ (i == 700) for i, b in enumerate(path.read_bytes()))),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "no places": lambda path: np.savez(path, format=1, key=np.array("key")),
    "another format": lambda path: np.savez(path, format=2, key=np.array("key"), places=random(9, 2)),
    "three columns": lambda path: np.savez(path, format=1, key=np.array("key"), places=random(9, 3)),
    "no numbers": lambda path: save_places(path, np.full((9, 2), np.nan, np.float32), "key"),
    "one dimension": lambda path: save_places(path, random(9, 2).ravel(), "key"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_places_is_as_good_as_none(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "places.npz"
    save_places(path, random(200, 2), "key")
    assert load_places(path, "key") is not None
    DAMAGES[damage](path)
    assert load_places(path, "key") is None


def test_code_in_a_file_of_places_is_not_run(tmp_path: Path, trap) -> None:
    path = tmp_path / "places.npz"
    np.savez(path, format=1, key=np.array("key"), places=np.array([trap], dtype=object))
    assert load_places(path, "key") is None
    assert not trap.sprung


def test_places_that_cannot_be_written_are_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LoupeError, match="cannot be written"):
        save_places(tmp_path / "gone" / "places.npz", random(3, 2), "key")
