"""Measure how long pictures of one's own take to be answered, and the memory that it takes.

    python -m benchmarks.classify_speed RUN [RUN ...] [--repeats 5] [--pictures 1000]

Beside a plain loop in the same process: Pillow opens the picture, torchvision's transforms cut out its middle, resize
and scale it, and the network answers; without EXIF, ink, and all that may be wrong with a picture. Both loops have the
model loaded and take turns, after a first round that does not count. Memory is the most that a fresh process of
``python -m engine predict`` had in use at a time (VmHWM), all imports included.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from benchmarks.environment import describe_machine, start_as_a_run_does
from benchmarks.train_speed import spread
from engine.base.machine import load_average
from engine.images.pictures import open_picture
from engine.inference.batch import Pictures, answer, classify_all
from engine.inference.classifier import Classifier, load_classifier
from engine.runs.run import Run, open_run

Image.MAX_IMAGE_PIXELS = None
LARGE = 12_000


def scene(height: int, width: int, seed: int) -> Image.Image:
    """Make a picture that is smooth as photographs are, with some grain."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3)).astype(np.uint8)).resize((width, height))
    grain = random.integers(-6, 7, (min(height, 512), min(width, 512), 3))
    tiled = np.tile(grain, (-(-height // grain.shape[0]), -(-width // grain.shape[1]), 1))[:height, :width]
    return Image.fromarray((np.asarray(coarse).astype(np.int16) + tiled.astype(np.int16)).clip(0, 255).astype(np.uint8))


def plain_loop(classifier: Classifier) -> Callable[[Path], torch.Tensor]:
    height, width, channels = classifier.preprocessing.image_shape
    mean, std = classifier.preprocessing.mean, classifier.preprocessing.std
    transform = v2.Compose(
        [
            v2.Resize(min(height, width), antialias=True),
            v2.CenterCrop((height, width)),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std) if len(mean) == channels else v2.Grayscale(len(mean)),
        ]
    )

    @torch.inference_mode()
    def classify(path: Path) -> torch.Tensor:
        picture = Image.open(path).convert("L" if channels == 1 else "RGB")
        return classifier.model(transform(picture)[None]).softmax(1)

    return classify


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare_one(name: str, classifier: Classifier, path: Path, repeats: int) -> None:
    plain, channels = plain_loop(classifier), classifier.preprocessing.image_shape[2]
    ours, theirs = [], []
    for _ in range(4 * repeats + 1):
        ours.append(1000 * timed(lambda: answer(classifier, path.name, open_picture(path, channels))))
        theirs.append(1000 * timed(lambda: plain(path)))
    ours, theirs = ours[1:], theirs[1:]
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"| {name} | {len(ours)} | {spread(theirs, ',.1f')} | {spread(ours, ',.1f')} | {ratio:.2f} |", flush=True)


def compare_many(name: str, classifier: Classifier, folder: Path, repeats: int) -> None:
    plain, paths = plain_loop(classifier), sorted(folder.iterdir())
    ours, theirs = [], []
    for _ in range(repeats + 1):
        ours.append(timed(lambda: [each.top for each in classify_all(classifier, Pictures([str(folder)]))]))
        theirs.append(timed(lambda: [plain(path) for path in paths]))
    ours, theirs = ours[1:], theirs[1:]
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"| {name} | {len(ours)} | {spread(theirs)} | {spread(ours)} | {ratio:.2f} |", flush=True)


PEAK = "import re, sys; from engine.commands.main import main; code = main(sys.argv[1:]); " + (
    "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr); sys.exit(code)"
)


def peak_memory(run: Run, path: Path) -> float:
    """Return the most memory in MB that a process had in use which classifies what is at a path."""
    command = [sys.executable, "-c", PEAK, "predict", run.id, str(path), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return int(ended.stderr.split()[-1]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=1000)
    args = parser.parse_args()
    start_as_a_run_does()
    runs = [open_run(name) for name in args.runs]
    print(f"{describe_machine()}, load {load_average():.2f} a core\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scene(3000, 4000, 0).save(folder / "camera.jpg", quality=90)
        photographs = folder / "photographs"
        photographs.mkdir()
        for number in range(args.pictures):
            place = photographs / f"{number:05}.jpg"
            if number < 10:
                scene(1200, 1600, number).save(place, quality=90)
            else:
                place.hardlink_to(photographs / f"{number % 10:05}.jpg")
        print("| one picture | n | plain, ms | Loupe, ms | Loupe / plain |\n|---|---|---|---|---|")
        for run in runs:
            classifier = load_classifier(run)
            height, width, _ = classifier.preprocessing.image_shape
            own = folder / f"{run.id}.png"
            mode = "L" if classifier.preprocessing.image_shape[2] == 1 else "RGB"
            scene(height, width, 1).convert(mode).save(own)
            name = f"{run.read_recipe().model}, {width} x {height}"
            compare_one(f"{name}: its own size", classifier, own, args.repeats)
            compare_one(f"{name}: a JPEG of 4,000 x 3,000", classifier, folder / "camera.jpg", args.repeats)
        print("\n| many pictures | n | plain, s | Loupe, s | Loupe / plain |\n|---|---|---|---|---|")
        for run in runs:
            classifier = load_classifier(run)
            own = folder / run.id
            own.mkdir()
            content = (folder / f"{run.id}.png").read_bytes()
            for number in range(args.pictures):
                (own / f"{number:05}.png").write_bytes(content)
            count = f"{args.pictures:,}"
            model = run.read_recipe().model
            compare_many(f"{model}: {count} of its own size", classifier, own, args.repeats)
            compare_many(f"{model}: {count} of 1,600 x 1,200", classifier, photographs, args.repeats)
        print("\n| most memory of a process, MB | " + " | ".join(run.read_recipe().model for run in runs) + " |")
        print("|---" * (len(runs) + 1) + "|")
        large = scene(LARGE, LARGE, 2)
        large.save(folder / "large.jpg", quality=90)
        large.save(folder / "large.png", compress_level=1)
        large.convert("RGBA").save(folder / "large-rgba.png", compress_level=1)
        del large
        for name, place in (
            ("one picture of its own size", None),
            (f"{args.pictures:,} JPEGs of 1,600 x 1,200", photographs),
            (f"a JPEG of {LARGE:,} x {LARGE:,}", folder / "large.jpg"),
            (f"a PNG of {LARGE:,} x {LARGE:,}", folder / "large.png"),
            (f"a PNG of {LARGE:,} x {LARGE:,} with transparency", folder / "large-rgba.png"),
        ):
            figures = [f"{peak_memory(run, place or folder / f'{run.id}.png'):,.0f}" for run in runs]
            print(f"| {name} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
