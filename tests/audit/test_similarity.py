import numpy as np
import pytest

from engine.audit import similarity
from engine.audit.similarity import MAX_DISTANCE, directions, find_pairs, frequencies, perceptual_hashes


def photographs(count: int, side: int = 32) -> np.ndarray:
    """Make grey images of soft shapes under fine noise: float32 (count, side, side)."""
    random_state = np.random.default_rng(1)
    shapes = frequencies_to_images(random_state.normal(0, 1, (count, 8, 8)), side)
    return (128 + 12 * shapes + random_state.normal(0, 5, (count, side, side))).clip(0, 255).astype(np.float32)


def frequencies_to_images(coefficients: np.ndarray, side: int) -> np.ndarray:
    waves = np.cos(np.pi / side * np.arange(8)[:, np.newaxis] * (np.arange(side) + 0.5))
    return waves.T @ coefficients @ waves


def described(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    coefficients = frequencies(images.astype(np.float32))
    return perceptual_hashes(coefficients), directions(coefficients)


def pairs_of(hashes: np.ndarray, vectors: np.ndarray, **options) -> list[tuple[int, int, int]]:
    *_, (done, total, pairs) = find_pairs(hashes, vectors, **options)
    assert done == total
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.distance.tolist(), strict=True))


def bits_apart(one: int, other: int) -> int:
    return (int(one) ^ int(other)).bit_count()


def clusters(count: int, members: int, spread: int) -> np.ndarray:
    """Make hashes around some centres: up to ``spread`` bits of each centre are flipped."""
    random_state = np.random.default_rng(2)
    centres = random_state.integers(0, 2**63, count, dtype=np.uint64).repeat(members)
    for _ in range(spread):
        centres ^= np.uint64(1) << random_state.integers(0, 63, len(centres), dtype=np.uint64)
    return centres


def test_frequencies_are_those_of_the_plain_double_sum():
    image = photographs(1, side=14)[:, :, :11]
    found = frequencies(image)
    assert found.shape == (1, 12, 11)
    for row, column in ((0, 0), (0, 3), (2, 1), (11, 10)):
        total = 0.0
        for y in range(14):
            for x in range(11):
                total += (
                    float(image[0, y, x])
                    * np.cos(np.pi * (y + 0.5) * row / 14)
                    * np.cos(np.pi * (x + 0.5) * column / 11)
                )
        scale = (np.sqrt(1 / 14) if row == 0 else np.sqrt(2 / 14)) * np.sqrt((1 if column == 0 else 2) / 11)
        assert found[0, row, column] == pytest.approx(total * scale, abs=1e-2)


def test_frequencies_do_not_depend_on_the_slabs_that_large_images_are_taken_in(monkeypatch):
    images = photographs(2, side=50)
    whole = frequencies(images)
    monkeypatch.setattr(similarity, "SMALL_PRODUCT", 7 * 50 * 12)
    np.testing.assert_allclose(frequencies(images), whole, atol=1e-2)
    monkeypatch.setattr(similarity, "SMALL_PRODUCT", 1)
    np.testing.assert_allclose(frequencies(images), whole, atol=1e-2)


def test_each_hash_has_half_of_its_bits_set_and_differs():
    hashes, _ = described(photographs(50))
    assert {int(number).bit_count() for number in hashes} == {31}  # 31 of 63 are above the median
    assert len(set(hashes.tolist())) == 50


@pytest.mark.parametrize("change", [lambda image: image * 0.7, lambda image: image + 30])
def test_the_hash_keeps_under_brightness_and_contrast(change):
    images = photographs(20)
    assert np.bitwise_count(described(images)[0] ^ described(change(images))[0]).max() <= 2


def test_the_hash_of_a_negative_is_another():
    images = photographs(20)
    assert np.bitwise_count(described(images)[0] ^ described(255 - images)[0]).min() > 50


def test_the_hash_and_the_vectors_survive_another_size():
    large = photographs(30, side=64)
    small = large.reshape(30, 32, 2, 32, 2).mean(axis=(2, 4))
    (hashes, vectors), (small_hashes, small_vectors) = described(large), described(small)
    assert np.bitwise_count(hashes ^ small_hashes).max() <= 4
    assert (vectors * small_vectors).sum(axis=1).min() > 0.98


def test_vectors_of_an_image_without_contrast_are_nothing():
    _, vectors = described(np.zeros((1, 9, 9)))
    assert not vectors.any()


@pytest.mark.parametrize("limit", [10_000, 10], ids=["each with each", "by equal bytes"])
def test_pairs_are_those_of_a_plain_loop(limit, monkeypatch):
    monkeypatch.setattr(similarity, "ROWS", 16)  # so that 240 images are many blocks, and groups large and small
    monkeypatch.setattr(similarity, "COLUMNS", 32)
    hashes = clusters(6, 40, spread=3)  # within 6 bits of each other, which both ways promise to find
    vectors = np.ones((len(hashes), 1), np.float32)  # all are alike, so that the hash decides
    expected = {
        (first, second, bits_apart(hashes[first], hashes[second]))
        for first in range(len(hashes))
        for second in range(first + 1, len(hashes))
        if bits_apart(hashes[first], hashes[second]) <= MAX_DISTANCE
    }
    assert len(expected) > 4000
    found = pairs_of(hashes, vectors, limit=limit)
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert [distance for *_, distance in found] == sorted(distance for *_, distance in expected)


def test_equal_bytes_miss_only_what_is_further_apart_than_six_bits():
    hashes = clusters(400, 2, spread=9)
    vectors = np.ones((len(hashes), 1), np.float32)
    every, some = set(pairs_of(hashes, vectors)), set(pairs_of(hashes, vectors, limit=10))
    assert some <= every
    assert {pair for pair in every if pair[2] <= 6} <= some


@pytest.mark.parametrize("limit", [10_000, 10])
def test_equal_hashes_of_images_that_are_not_alike_are_no_pair(limit):
    random_state = np.random.default_rng(3)
    vectors = random_state.normal(size=(60, 30)).astype(np.float32)
    vectors[41] = vectors[7] + random_state.normal(0, 0.05, 30)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert pairs_of(np.zeros(60, np.uint64), vectors, limit=limit) == [(7, 41, 0)]


def test_among_images_that_are_all_alike_only_the_much_closer_are_pairs():
    random_state = np.random.default_rng(4)
    vectors = random_state.normal(1, 0.15, (300, 100)).astype(np.float32)
    vectors[11] = vectors[5] + random_state.normal(0, 0.04, 100)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    correlations = (vectors @ vectors.T)[np.triu_indices(300, 1)]
    assert correlations.min() > similarity.LEAST_CORRELATION
    assert pairs_of(np.zeros(300, np.uint64), vectors) == [(5, 11, 0)]


def test_vectors_of_half_precision_find_the_same_pairs():
    images = photographs(80)
    images = np.concatenate([images, images[:20] * 0.8])
    hashes, vectors = described(images)
    found = pairs_of(hashes, vectors)
    assert [(first, second) for first, second, _ in sorted(found)] == [(place, place + 80) for place in range(20)]
    assert pairs_of(hashes, vectors.astype(np.float16)) == found


def test_of_too_many_pairs_the_closest_are_kept(monkeypatch):
    monkeypatch.setattr(similarity, "MAX_PAIRS", 50)
    hashes = clusters(4, 30, spread=4)
    vectors = np.ones((len(hashes), 1), np.float32)
    kept = [distance for *_, distance in pairs_of(hashes, vectors)]
    monkeypatch.setattr(similarity, "MAX_PAIRS", 100_000)
    every = [distance for *_, distance in pairs_of(hashes, vectors)]
    assert len(kept) == 51  # one more tells that there are more
    assert kept == every[:51]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_pairs(count):
    assert pairs_of(np.zeros(count, np.uint64), np.ones((count, 5), np.float32)) == []


@pytest.mark.parametrize("count", [2, 3])
def test_a_copy_is_found_among_two_or_three_images(count):
    images = photographs(count)
    images[1] = images[0] * 0.9
    hashes, vectors = described(images)
    assert [pair[:2] for pair in pairs_of(hashes, vectors)] == [(0, 1)]
