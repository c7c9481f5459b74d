"""Compare how well runs read handwritten digits as they are stored with how they read photographs of the same digits.

    python -m benchmarks.photographed_digits RUN [RUN ...] [--count 1000] [--sheet DIRECTORY]

Test images of the run's dataset are enlarged, printed on paper and photographed, in several ways: see ``WAYS``. The
style of the ink is that of the run's training images. ``--sheet`` writes pictures of what the model is given.
"""

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.environment import describe_machine
from engine.data.dataset import open_dataset
from engine.images.ink import normalize_ink
from engine.images.ink_style import InkStyle, measure_ink_style
from engine.inference.classifier import Classifier, load_classifier
from engine.runs.run import open_run

Random = np.random.Generator
# Of large photographs, which take long to make, this share is looked at.
LARGE_SHARE = 0.2


def enlarged(image: np.ndarray, side: int, smoothly: Image.Resampling) -> np.ndarray:
    """Enlarge an image, uint8 (height, width), to coverage by ink, 0 to 1."""
    return np.asarray(Image.fromarray(image).resize((side, side), smoothly), np.float32) / 255


def any_smoothing(random: Random) -> Image.Resampling:
    return random.choice([Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])


def on_a_sheet(ink: np.ndarray, height: int, width: int, random: Random) -> np.ndarray:
    sheet = np.zeros((height, width), np.float32)
    top, left = (int(random.integers(0, room + 1)) for room in (height - ink.shape[0], width - ink.shape[1]))
    sheet[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return sheet


def uneven_light(height: int, width: int, random: Random) -> np.ndarray:
    """Make light that falls off to one side and to the corners, with a soft shadow across it."""
    down, right = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    angle, shadow_angle = random.uniform(0, 2 * np.pi, 2)
    light = 1 - random.uniform(0, 0.25) * (1 + np.cos(angle) * down + np.sin(angle) * right) / 2
    light *= 1 - random.uniform(0, 0.2) * (down**2 + right**2) / 2
    across = np.cos(shadow_angle) * down + np.sin(shadow_angle) * right - random.uniform(-0.8, 0.8)
    return light * (1 - random.uniform(0, 0.4) / (1 + np.exp(-across / random.uniform(0.03, 0.2))))


def photograph(ink: np.ndarray, random: Random, paper: float, pen: float, blur: float = 1.0) -> np.ndarray:
    """Photograph a sheet: its light uneven, blurred, with grain, as a JPEG. paper, pen: levels of 0 to 255."""
    levels = (paper + (pen - paper) * ink) * uneven_light(*ink.shape, random)
    seen = Image.fromarray(levels.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(random.uniform(0, blur))
    )
    grain = random.normal(0, random.uniform(2, 9), ink.shape)
    seen = Image.fromarray((np.asarray(seen) + grain).clip(0, 255).astype(np.uint8))
    content = io.BytesIO()
    seen.save(content, "jpeg", quality=int(random.integers(60, 95)))
    return np.asarray(Image.open(content))


def skeleton(mask: np.ndarray) -> np.ndarray:
    """Thin a mask to lines of one pixel (Zhang and Suen, 1984)."""
    mask = np.pad(mask, 1)
    removed = True
    while removed:
        removed = False
        for first in (True, False):
            around = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]
            p = np.array([np.roll(mask, (-down, -right), (0, 1)) for down, right in around])
            crossings = (~p & np.roll(p, -1, 0)).sum(0)
            a, b = ((0, 2, 4), (2, 4, 6)) if first else ((0, 2, 6), (0, 4, 6))
            gone = mask & (p.sum(0) >= 2) & (p.sum(0) <= 6) & (crossings == 1) & ~p[list(a)].all(0) & ~p[list(b)].all(0)
            mask &= ~gone
            removed |= bool(gone.any())
    return mask[1:-1, 1:-1]


def drawn_with_a_pen(image: np.ndarray, side: int, pen: float) -> np.ndarray:
    """Draw the middle lines of an image's strokes anew with a pen of this width in pixels."""
    lines = skeleton(enlarged(image, 4 * 28, Image.Resampling.BICUBIC) > 0.5)
    canvas = Image.new("L", (2 * side, 2 * side))  # twice as large, for smooth edges
    draw, scale = ImageDraw.Draw(canvas), 2 * side / len(lines)
    for row, column in (np.argwhere(lines) + 0.5) * scale:
        draw.ellipse((column - pen, row - pen, column + pen, row + pen), fill=255)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for row, column in np.argwhere(lines & np.roll(lines, (-down, -right), (0, 1))) + 0.5:
            ends = (column * scale, row * scale, (column + right) * scale, (row + down) * scale)
            draw.line(ends, fill=255, width=round(2 * pen))
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX), np.float32) / 255


def in_the_middle(ink: np.ndarray, random: Random, room: tuple[float, float] = (1.2, 2.2)) -> np.ndarray:
    height, width = (int(len(ink) * random.uniform(*room)) for _ in range(2))
    return on_a_sheet(ink, height, width, random)


def photographed(image: np.ndarray, random: Random) -> np.ndarray:
    ink = enlarged(image, int(random.integers(160, 261)), any_smoothing(random))
    return photograph(in_the_middle(ink, random), random, random.uniform(180, 250), random.uniform(15, 80))


def of_grey_paper(image: np.ndarray, random: Random) -> np.ndarray:
    ink = enlarged(image, int(random.integers(160, 261)), any_smoothing(random))
    return photograph(in_the_middle(ink, random), random, random.uniform(90, 150), random.uniform(15, 50))


def in_pencil(image: np.ndarray, random: Random) -> np.ndarray:
    ink = drawn_with_a_pen(image, int(random.integers(160, 261)), random.uniform(3, 5))
    return photograph(in_the_middle(ink, random), random, random.uniform(200, 240), random.uniform(110, 150))


def with_a_thin_pen(image: np.ndarray, random: Random) -> np.ndarray:
    ink = drawn_with_a_pen(image, int(random.integers(160, 261)), random.uniform(1.5, 5))
    return photograph(in_the_middle(ink, random), random, random.uniform(180, 250), random.uniform(15, 80))


def with_a_broad_pen(image: np.ndarray, random: Random) -> np.ndarray:
    ink = drawn_with_a_pen(image, int(random.integers(160, 261)), random.uniform(10, 22))
    return photograph(in_the_middle(ink, random), random, random.uniform(180, 250), random.uniform(15, 80))


def on_a_cluttered_table(image: np.ndarray, random: Random) -> np.ndarray:
    """Among dust, beside a margin line and the edge of the table."""
    ink = enlarged(image, int(random.integers(160, 261)), any_smoothing(random))
    ink = np.pad(in_the_middle(ink, random), 40)
    height, width = ink.shape
    levels = np.zeros_like(ink)
    for _ in range(int(random.integers(3, 12))):
        y, x, size = int(random.integers(0, height)), int(random.integers(0, width)), int(random.integers(1, 5))
        levels[y : y + size, x : x + size] = random.uniform(0.3, 1)
    levels[:, 30:33] = 0.7
    levels[-int(random.integers(4, 36)) :] = 0.8
    return photograph(np.maximum(ink, levels), random, random.uniform(180, 250), random.uniform(15, 80))


def on_paper_on_a_dark_table(image: np.ndarray, random: Random) -> np.ndarray:
    ink = in_the_middle(enlarged(image, int(random.integers(160, 261)), any_smoothing(random)), random)
    margins = [(int(random.integers(20, 120)), int(random.integers(20, 120))) for _ in range(2)]
    return photograph(
        np.pad(ink, margins, constant_values=0.9), random, random.uniform(200, 250), random.uniform(15, 60)
    )


def small_in_a_large_photograph(image: np.ndarray, random: Random) -> np.ndarray:
    height, width = (int(random.integers(1_000, 3_001)) for _ in range(2))
    side = int(max(height, width) * random.uniform(0.08, 0.25))
    if random.random() < 0.5:
        ink = enlarged(image, side, any_smoothing(random))
    else:
        ink = drawn_with_a_pen(image, side, side * random.uniform(0.02, 0.05))
    sheet = on_a_sheet(ink, height, width, random)
    return photograph(sheet, random, random.uniform(180, 250), random.uniform(15, 80), blur=3)


def on_a_blackboard(image: np.ndarray, random: Random) -> np.ndarray:
    ink = enlarged(image, int(random.integers(160, 261)), any_smoothing(random))
    return photograph(in_the_middle(ink, random), random, random.uniform(20, 80), random.uniform(180, 250))


def drawn_on_a_canvas(image: np.ndarray, random: Random) -> np.ndarray:
    """Black on white, 280 pixels, as a drawing program has it."""
    return ((1 - drawn_with_a_pen(image, 280, random.uniform(1, 14))) * 255).astype(np.uint8)


def merely_enlarged(image: np.ndarray, random: Random) -> np.ndarray:
    return (enlarged(image, int(random.integers(60, 300)), any_smoothing(random)) * 255).astype(np.uint8)


def merely_inverted(image: np.ndarray, random: Random) -> np.ndarray:
    return 255 - image


WAYS: dict[str, Callable[[np.ndarray, Random], np.ndarray]] = {
    "photographed": photographed,
    "on grey paper": of_grey_paper,
    "with a thin pen": with_a_thin_pen,
    "in pencil": in_pencil,
    "with a broad pen": with_a_broad_pen,
    "among dust, lines and edges": on_a_cluttered_table,
    "on paper on a dark table": on_paper_on_a_dark_table,
    "small, in 1,000 to 3,000 pixels": small_in_a_large_photograph,
    "on a blackboard": on_a_blackboard,
    "drawn on a canvas": drawn_on_a_canvas,
    "enlarged, light on dark": merely_enlarged,
    "inverted, of the model's size": merely_inverted,
}


def answers(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    return np.concatenate([batch.argmax(axis=1) for batch in classifier.probabilities(images)])


def show(pairs: list[tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Write pictures and what becomes of them, side by side."""
    side, across = 84, 14
    sheet = Image.new("L", (across * 2 * (side + 2), -(-len(pairs) // across) * (side + 2)), 128)
    for at, pair in enumerate(pairs):
        for half, image in enumerate(pair):
            small = Image.fromarray(image)
            scale = side / max(small.size)
            small = small.resize([max(1, round(length * scale)) for length in small.size], Image.Resampling.BOX)
            sheet.paste(small, ((2 * (at % across) + half) * (side + 2), at // across * (side + 2)))
    sheet.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument(
        "--sheet", type=Path, help="a directory for pictures of the first of each, and of the last run's mistakes"
    )
    args = parser.parse_args()

    runs = [open_run(name) for name in args.runs]
    classifiers = [load_classifier(run) for run in runs]
    dataset = open_dataset(runs[0].read_recipe().dataset)
    style = measure_ink_style(dataset.splits["train"].images)
    if not isinstance(style, InkStyle):
        raise SystemExit(f"The images of {dataset.name} are not light strokes on dark: choose runs of MNIST, say.")
    test = dataset.splits["test"]
    chosen = np.sort(np.random.default_rng(0).permutation(len(test))[: args.count])
    images, labels = np.asarray(test.images[chosen]), np.asarray(test.labels[chosen])
    height, width = dataset.image_shape[:2]

    print(describe_machine())
    print(f"{len(images)} test images of {dataset.name}, {style}; accuracy in %, and in parts of the plain one")
    print("| | ms | " + " | ".join(f"`{run.read_recipe().name}`" for run in runs) + " |")
    print("|---|---" + "|---" * len(runs) + "|")
    right = [answers(classifier, images) == labels for classifier in classifiers]
    print("| as stored | | " + " | ".join(f"{100 * each.mean():.1f}" for each in right) + " |")
    for way in args.ways:
        part = slice(int(args.count * (LARGE_SHARE if WAYS[way] is small_in_a_large_photograph else 1)))
        random = np.random.default_rng(1)
        pictures = [WAYS[way](image[..., 0], random) for image in images[part]]
        began = time.perf_counter()
        read = [normalize_ink(picture[..., np.newaxis], height, width, *astuple(style))[0] for picture in pictures]
        milliseconds = (time.perf_counter() - began) * 1000 / len(pictures)
        seen = np.stack([image if image.shape[:2] == (height, width) else np.zeros_like(images[0]) for image in read])
        cells = []
        for classifier, plain in zip(classifiers, right, strict=True):
            photographed_right = answers(classifier, seen) == labels[part]
            cells.append(
                f"{100 * photographed_right.mean():.1f} ({photographed_right.mean() / plain[part].mean():.3f})"
            )
        print(f"| {way} | {milliseconds:.1f} | " + " | ".join(cells) + " |", flush=True)
        if args.sheet:
            pairs = [(picture, image[..., 0]) for picture, image in zip(pictures, read, strict=True)]
            show(pairs[:84], args.sheet / f"{way}.png")
            mistakes = [pair for pair, is_right in zip(pairs, photographed_right, strict=True) if not is_right]
            if mistakes:
                show(mistakes, args.sheet / f"{way}, mistakes.png")


if __name__ == "__main__":
    main()
