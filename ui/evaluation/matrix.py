"""The confusion matrix as a component: a table whose every cell can be clicked, at ten classes and at hundreds.

A table of its own, and not a chart: with 100 classes it is there in a third of the time, its labels stay in sight
while it is scrolled, and it can be walked with the arrow keys and read by a screen reader.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from ui.components import component

MODES = COUNTS, SHARES, MISTAKES = ("Counts", "Shares of each row", "Mistakes only")

_component = component("confusion_matrix")


def confusion_grid(
    matrix: np.ndarray, classes: Sequence[str], *, mode: str, order: np.ndarray, what: str, key: str
) -> tuple[int, int] | None:
    """Show a confusion matrix; returns the true and the predicted class of the cell that was just clicked.

    mode: one of MODES: cells are counts, shares of their row in percent, or counts with the diagonal left blank and the
    shades of the mistakes spread over the whole scale. order: of the classes, as indices. what: is counted.
    """
    totals = matrix.sum(axis=1)
    shares = matrix / np.maximum(totals[:, None], 1)
    if mode == MISTAKES:
        np.fill_diagonal(shares, 0)
        shares /= max(shares.max(), 1e-9)
    # The diagonal would drown the mistakes: a root spreads the low end of the scale.
    shades = np.ceil(100 * np.sqrt(shares)).astype(int)
    data = {
        "classes": [classes[label] for label in order],
        "counts": matrix[np.ix_(order, order)].tolist(),
        "totals": totals[order].tolist(),
        "shades": shades[np.ix_(order, order)].tolist(),
        "order": order.tolist(),
        "shares": mode == SHARES,
        "mistakes": mode == MISTAKES,
        "what": what,
    }
    data["version"] = hashlib.sha256(repr(data).encode()).hexdigest()[:16]
    picked = _component(data=data, key=key, on_cell_change=lambda: None).cell
    return None if picked is None else (int(picked[0]), int(picked[1]))
