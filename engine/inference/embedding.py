"""Features in two dimensions: a map on which images that a model takes for alike lie close together."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.base.errors import DivergedError
from engine.base.machine import cores
from engine.base.paths import replacing_file, writing_folder

FORMAT = 1
SEED = 0
PERPLEXITY = 30
# Iterations with their exaggeration, as openTSNE has them by default; so many are done between two words of progress.
PHASES = ((250, 12.0), (500, 1.0))
AT_ONCE = 25
# Of fewer images one thread alone: beside a training, several that wait for each other took ten times as long.
THREADED_FROM = 2000
# t-SNE is about the closest neighbours, which the first components tell as well as all features do.
MOST_COMPONENTS = 50


@dataclass(frozen=True)
class Placing:
    """How far t-SNE is: ``done`` of ``total`` iterations."""

    done: int
    total: int


def pca(features: np.ndarray) -> tuple[np.ndarray, float]:
    """Project features, float32 (count, features), on the two directions in which they vary most.

    Returns places, float32 (count, 2), with zeros where there is no direction left, and the share of the features'
    variance that they have, 0 to 1.
    """
    components, share = _components(features, 2)
    places = np.zeros((len(features), 2), np.float32)
    places[:, : components.shape[1]] = components
    return places, share


def tsne(features: np.ndarray) -> Generator[Placing, None, np.ndarray]:
    """Place images by t-SNE, yielding progress; the generator's return value is their places, float32 (count, 2).

    As openTSNE does it by default (Policar et al. 2024): from the PCA, 250 iterations of early exaggeration, then 500.
    Fewer than 4 images, which have no neighbourhoods to keep, are placed by the PCA alone.
    """
    total = sum(iterations for iterations, _ in PHASES)
    yield Placing(0, total)
    start, _ = pca(features)
    if len(features) < 4 or not start.any():
        yield Placing(total, total)
        return start

    from openTSNE import TSNEEmbedding, initialization
    from openTSNE.affinity import PerplexityBasedNN

    threads = cores() if len(features) >= THREADED_FROM else 1
    affinities = PerplexityBasedNN(
        _components(features, MOST_COMPONENTS)[0],
        perplexity=min(PERPLEXITY, (len(features) - 1) // 3),
        n_jobs=threads,
        random_state=SEED,
    )
    # Small, or the exaggeration has nothing to do; and no two in the very same place, which nothing would part.
    start = initialization.jitter(initialization.rescale(start.astype(np.float64)), random_state=SEED)
    embedding = TSNEEmbedding(start, affinities, random_state=SEED, n_jobs=threads)
    done = 0
    for iterations, exaggeration in PHASES:
        for _ in range(iterations // AT_ONCE):
            embedding.optimize(AT_ONCE, exaggeration=exaggeration, momentum=0.8, inplace=True)
            done += AT_ONCE
            yield Placing(done, total)
    return np.asarray(embedding, np.float32)


def _components(features: np.ndarray, most: int) -> tuple[np.ndarray, float]:
    """Return the principal components in which features vary at all, at most so many, and their share of variance."""
    if not np.isfinite(features).all():
        raise DivergedError(
            "The model's features are not numbers: its training has diverged. "
            "Train it again with a lower learning_rate."
        )
    if (features == features[:1]).all():
        return np.zeros((len(features), 0), np.float32), 0.0

    from sklearn.decomposition import PCA

    fitted = PCA(min(most, *features.shape), random_state=SEED)
    # Of features far from 0, scikit-learn would lose what they differ by.
    components = fitted.fit_transform((features - features.mean(axis=0, dtype=np.float64)).astype(np.float32))
    # Of what does not vary, rounding leaves a little.
    varies = fitted.explained_variance_ > 1e-10 * fitted.explained_variance_[0]
    return components[:, varies], float(min(1.0, fitted.explained_variance_ratio_[varies].sum()))


def save_places(path: Path, places: np.ndarray, key: str) -> None:
    """Keep places, float32 (count, 2). key: what they depend on."""
    with writing_folder(path.parent), replacing_file(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, format=FORMAT, key=np.array(key), places=places)


def load_places(path: Path, key: str) -> np.ndarray | None:
    """Read places; None when there are none, or none that can be read, of this very key. Runs no code from the file."""
    try:
        # Opened here: NumPy leaves a file that it cannot read open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if (int(arrays["format"]), str(arrays["key"])) != (FORMAT, key):
                return None
            places = arrays["places"]
    except Exception:  # zipfile, zlib and NumPy raise whatever the damage leads to
        return None
    whole = places.ndim == 2 and places.shape[1] == 2 and places.dtype == np.float32 and np.isfinite(places).all()
    return places if whole else None
