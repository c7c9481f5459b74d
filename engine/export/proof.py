"""The proof of an export: loaded again without Loupe, it must answer as the run does."""

import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.base.errors import LoupeError
from engine.base.text import pluralize, printable
from engine.data.dataset import Dataset, is_prepared, open_dataset
from engine.images.pictures import open_picture
from engine.importing.originals import read_originals
from engine.runs.run import Run

if TYPE_CHECKING:
    from engine.inference.classifier import Classifier
    from engine.networks.preprocessing import Preprocessing

IMAGES = 100
LIMIT = 1e-4
# Batches of other sizes than the model's, which it has to resize: height and width.
ODD_SIZES = ((45, 57), (200, 131), (9, 300), (1, 1))
ODD_IMAGES = 4
STORED = "as stored"
# Files that the images were imported from, and how many may have another answer than their image: it was resized by
# Pillow, and rounded, so that one on the edge may fall to either side.
FILES = 40
MOST_DIFFERENT = 0.1
REPLAY = Path(__file__).with_name("replay.py")
SECONDS = 600


@dataclass(frozen=True)
class Proof:
    """How an export's answers compare with the run's.

    images: how many were compared as they are stored, and inputs: what they are, in words. resized: so many more were
    of other sizes. files: so many more were the files that images were imported from, as they are. largest: difference
    in probability among all. different: how many of all have another answer. agreeing: for how many of the files the
    answer is that of the evaluation, which sees the image that the import made of it.
    """

    images: int
    inputs: str
    resized: int
    largest: float
    different: int
    files: int = 0
    agreeing: int = 0

    def in_words(self) -> str:
        parts = [f"{self.images:,} {self.inputs}"]
        if self.resized:
            parts.append(f"{self.resized:,} of other sizes made of them")
        if self.files:
            parts.append(f"{pluralize(self.files, 'file')} that {'was' if self.files == 1 else 'were'} imported")
        said = (
            f"On {', and on '.join(parts)}, loaded again in a process without Loupe: the largest difference "
            f"in probability from the run's own answers is {self.largest:.1e}, and {self.different:,} of "
            f"{pluralize(self.images + self.resized + self.files, 'answer')} "
            f"{'is' if self.different == 1 else 'are'} different."
        )
        if self.files:
            said += f" Of the files, {self.agreeing:,} of {self.files:,} are answered as in the evaluation."
        return said


def prove(run: Run, model: Path) -> Proof:
    """Run an exported model on test images in a fresh process without Loupe, and compare.

    Raises LoupeError when a probability differs by more than 1e-4, or when it does not run.
    """
    from engine.inference.classifier import load_classifier

    classifier = load_classifier(run)
    samples, inputs, files = _samples(run, classifier)
    batches = {STORED: samples} | {f"file {row}": pixels[np.newaxis] for row, pixels in files.items()}
    if classifier.preprocessing.is_of_images:
        batches |= {f"{height} x {width}": _resized(samples[:ODD_IMAGES], height, width) for height, width in ODD_SIZES}
    answers = _replay(model, batches)
    largest, different = 0.0, 0
    for name, batch in batches.items():
        expected = np.concatenate(list(classifier.probabilities(batch)))
        found = answers[name]
        if found.shape != expected.shape:
            raise _refused(f"it answers with an array of shape {found.shape} where {expected.shape} is expected")
        difference = float(np.abs(found - expected).max())
        if not difference <= LIMIT:  # nor what is no number
            what = {STORED: inputs}.get(name, "a file" if name.startswith("file ") else f"images of {name} pixels")
            raise _refused(
                f"its probabilities differ from the run's by up to {difference:.3g} on {what}, and {LIMIT:g} is the "
                "most that is let through"
            )
        largest = max(largest, difference)
        different += int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    evaluated = answers[STORED].argmax(axis=1)
    agreeing = sum(int(answers[f"file {row}"].argmax()) == evaluated[row] for row in files)
    if len(files) - agreeing > max(1, MOST_DIFFERENT * len(files)):
        raise _refused(
            f"of {len(files)} files that were imported, {len(files) - agreeing} get another answer than in the "
            "evaluation, so that it sees them otherwise than the training did"
        )
    resized = sum(len(batch) for batch in batches.values()) - len(samples) - len(files)
    return Proof(len(samples), inputs, resized, largest, different, len(files), agreeing)


def _refused(reason: str) -> LoupeError:
    return LoupeError(
        f"The export was given up, and nothing of it kept: {reason}. Try the other format, or other versions of torch "
        "and onnxruntime."
    )


def _samples(run: Run, classifier: "Classifier") -> tuple[np.ndarray, str, dict[int, np.ndarray]]:
    """Return images, or rows, to compare on, what they are in words, and some as their files show them, by row.

    They are test images where the dataset is here, and files where they are where they were imported from.
    """
    shape, name = classifier.preprocessing.shape, run.read_recipe().dataset
    if is_prepared(name):
        dataset = open_dataset(name)
        split = "test" if "test" in dataset.splits else "train"
        stored = dataset.splits[split].images
        if stored.shape[-1] == shape[-1] and stored.ndim == len(shape) + 1:
            chosen = np.sort(np.random.default_rng(0).permutation(len(stored))[:IMAGES])
            item = "image" if classifier.preprocessing.is_of_images else "row"
            words = f"{split}{'ing' if split == 'train' else ''} {item}s of {dataset.name}"
            return np.array(stored[chosen]), words, _files_of(dataset, split, chosen, classifier.preprocessing)
    random = np.random.default_rng(0)
    if not classifier.preprocessing.is_of_images:
        return random.normal(size=(IMAGES, *shape)).astype(np.float32), "generated rows (the dataset is not here)", {}
    noise = random.integers(0, 256, (IMAGES, *shape), np.uint8)
    return noise, "generated images (the dataset is not here)", {}


def _files_of(dataset: Dataset, split: str, rows: np.ndarray, preprocessing: "Preprocessing") -> dict[int, np.ndarray]:
    """Open the files that some of the chosen images were imported from, as predict.py does; by their place in rows."""
    if not preprocessing.is_of_images:
        return {}
    places = {int(row): place for place, row in enumerate(rows[:FILES])}
    found = {}
    for row, content in read_originals(dataset, split, places).items():
        with suppress(LoupeError):  # changed since, to what is no picture
            found[places[row]] = open_picture(content, preprocessing.image_shape[2], preprocessing.levels).pixels
    return found


def _resized(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring images to a size by repeating and leaving out pixels: it is the size that matters here."""
    rows, columns = (
        np.arange(length) * old // length for length, old in zip((height, width), images.shape[1:3], strict=True)
    )
    return np.ascontiguousarray(images[:, rows][:, :, columns])


def _replay(model: Path, batches: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        inputs, answers = Path(folder) / "inputs.npz", Path(folder) / "answers.npz"
        np.savez(inputs, **batches)  # type: ignore[arg-type]
        # Isolated, Python neither looks into this folder nor heeds PYTHONPATH: nothing of Loupe can be imported.
        command = [sys.executable, "-I", "-W", "ignore", str(REPLAY), str(model.resolve()), str(inputs), str(answers)]
        try:
            ended = subprocess.run(  # noqa: PLW1510 - its exit status is looked at
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise _refused(f"it did not answer within {SECONDS} seconds") from error
        if ended.returncode:
            words = ended.stderr.strip().splitlines()
            raise _refused(f"it does not run on its own ({printable(words[-1]) if words else 'it printed nothing'})")
        with np.load(answers) as found:
            return {name: found[name] for name in found}
