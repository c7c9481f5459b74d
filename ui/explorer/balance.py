"""How many images each class has."""

import streamlit as st

from engine.base.text import SPLIT_NAMES, join_words
from engine.data.dataset import Dataset
from ui.charts import CONFIG, class_counts
from ui.wording import plain

# Up to this ratio of the largest class to the smallest, accuracy means about the same for every class.
EVEN = 1.5


def show_balance(dataset: Dataset) -> None:
    counts = dataset.class_counts()
    what = "images" if dataset.kind == "images" else "rows"
    st.plotly_chart(class_counts(dataset.classes, counts, what), config=CONFIG, key="counts")
    st.markdown(balance_in_words(dataset.classes, counts, what))


def balance_in_words(classes: tuple[str, ...], counts: dict[str, list[int]], what: str = "images") -> str:
    """Say how evenly the training images are divided among the classes, with the ratio; and which splits lack some.

    what: ``images``, or what else is counted.
    """
    numbers = counts["train"]
    smallest, largest = min(numbers), max(numbers)
    few, many = classes[numbers.index(smallest)], classes[numbers.index(largest)]
    sentences = []
    if not smallest:
        lacking = [name for name, number in zip(classes, numbers, strict=True) if not number]
        sentences.append(f"**No training {what}** of {_some(lacking)}: a model cannot learn what it never sees.")
    elif smallest == largest:
        sentences.append(f"**Balanced**: every class has {smallest:,} training {what}.")
    else:
        ratio = largest / smallest
        most, least = f"class {plain(many)}", f"class {plain(few)}"
        how = f"{most} has {ratio:.2f} times the training {what} of {least} ({largest:,} to {smallest:,})"
        if ratio <= EVEN:
            sentences.append(f"**Nearly balanced**: {how}.")
        else:
            share = largest / sum(numbers)
            sentences.append(
                f"**Imbalanced**: {how}. Always answering {plain(many)} would already be right on {share:.1%} of them: "
                "look at each class's recall, not at accuracy alone."
            )
    for split, held in counts.items():
        absent = [name for name, number in zip(classes, held, strict=True) if not number]
        if split != "train" and absent:
            sentences.append(f"The {SPLIT_NAMES[split]} split has no {what} of {_some(absent)}.")
    return " ".join(sentences)


def _some(names: list[str]) -> str:
    shown = [plain(name) for name in names[:5]]
    return join_words([*shown, f"{len(names) - 5:,} more"] if len(names) > 5 else shown)
