"""Compare the import of a person's own pictures with the plain Pillow loop that one would write, on the same files.

    python -m benchmarks.ingest_speed [--zip PATH] [--photographs 200] [--repeats 5] [--only photographs,tiny,memory]

Photographs: JPEGs of 2,000 x 1,500 pixels in two class folders, brought to 224 x 224. Tiny images: JPEGs of 32 x 32
straight from a zip, the one named or one made for this. The two run in alternation; each repeat gives one ratio of
images a second over the whole import: listing, planning, starting processes, and describing the dataset too. Memory:
what ``python -m engine import`` takes with all its processes, shared pages counted once (Linux only), for few images
and for many; it must not grow with their count.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageOps, features

from engine.base.machine import cores
from engine.base.paths import PROJECT_ROOT, child_environment
from engine.importing.plan import Request
from engine.importing.write import import_dataset

PARTS = ("photographs", "tiny", "memory")
PHOTOGRAPH = (2000, 1500)
SIDE = 224
TINY_COUNT, TINY_SIDE, TINY_CLASSES = 20_000, 32, 10
TINY_REPEATS = 3
FEW = 1000
SAMPLING_SECONDS = 0.02


def make_photographs(folder: Path, count: int) -> None:
    """Write JPEGs of 0.5 to 1 MB in two class folders: smooth textures with noise, which is what takes the bytes."""
    random = np.random.default_rng(0)
    width, height = PHOTOGRAPH
    noise = random.normal(size=(height, width)).astype(np.float32)
    for number in range(count):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(PHOTOGRAPH, Image.Resampling.BICUBIC), dtype=np.float32)
        moved = np.roll(noise, random.integers(0, (height, width)), axis=(0, 1))
        grain = moved[:, :, None] * random.uniform(4, 8)
        path = folder / ("coast", "forest")[number % 2] / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=85)


def make_tiny_images(path: Path, count: int) -> None:
    """Write an archive of tiny JPEGs with a folder for each class."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            content = BytesIO()
            coarse.resize((TINY_SIDE, TINY_SIDE), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
            archive.writestr(f"tiny/class {number * TINY_CLASSES // count}/{number:06}.jpg", content.getvalue())


def plain_photographs(folder: Path, target: Path) -> int:
    """Decode, turn, scale and crop every file with Pillow, one after another; returns how many there were."""
    files = sorted(folder.glob("*/*.jpg"))
    images = np.empty((len(files), SIDE, SIDE, 3), dtype=np.uint8)
    for row, file in enumerate(files):
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        scale = SIDE / min(image.size)
        size = max(SIDE, round(image.width * scale)), max(SIDE, round(image.height * scale))
        left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
        image = image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + SIDE, top + SIDE))
        images[row] = np.asarray(image)
    np.save(target, images)
    return len(files)


def plain_archive(path: Path, target: Path) -> int:
    """Decode every entry of an archive with Pillow, one after another; returns how many there were."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        images = np.empty((len(names), TINY_SIDE, TINY_SIDE, 3), dtype=np.uint8)
        for row, name in enumerate(names):
            images[row] = np.asarray(Image.open(BytesIO(archive.read(name))).convert("RGB"))
    np.save(target, images)
    return len(names)


@contextmanager
def temporary_data() -> Iterator[Path]:
    """Keep the data of what is imported inside in a folder that is deleted afterwards."""
    before = os.environ.get("LOUPE_DATA")
    with TemporaryDirectory() as folder:
        os.environ["LOUPE_DATA"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("LOUPE_DATA")
            if before is not None:
                os.environ["LOUPE_DATA"] = before


@dataclass(frozen=True)
class Timing:
    """Seconds of a whole import and until its first images were decoded; images a second from then to the last."""

    whole: float
    until_first: float
    decoding_rate: float


def time_import(path: Path, size: int | None) -> Timing:
    """Import a source into a folder that is deleted afterwards."""
    decoded: list[tuple[float, int]] = []  # seconds and how many by then
    with temporary_data():
        began = time.perf_counter()
        for progress in import_dataset(Request("measured", str(path), size=size)):
            if progress.stage == "Decoding":
                decoded.append((time.perf_counter() - began, progress.done))
        whole = time.perf_counter() - began
    (until_first, first), (until_last, last) = decoded[0], decoded[-1]
    return Timing(whole, until_first, (last - first) / (until_last - until_first))


def compare(title: str, plain: Callable[[Path, Path], int], path: Path, size: int | None, repeats: int) -> None:
    """Run the plain loop and the import in alternation, and print what they did."""
    plain_seconds: list[float] = []
    imports: list[Timing] = []
    count = 0
    for _ in range(repeats):
        with TemporaryDirectory() as folder:
            began = time.perf_counter()
            count = plain(path, Path(folder) / "images.npy")
            plain_seconds.append(time.perf_counter() - began)
        imports.append(time_import(path, size))
    pairs = list(zip(plain_seconds, imports, strict=True))
    print(f"\n{title}: {count:,} images, n = {repeats}, median (lowest to highest)")
    print(f"plain loop, images/s                {spread([count / seconds for seconds in plain_seconds])}")
    print(f"Loupe, whole import, images/s       {spread([count / each.whole for each in imports])}")
    print(f"Loupe, once decoding, images/s      {spread([each.decoding_rate for each in imports])}")
    print(f"Loupe, until the first, seconds     {spread([each.until_first for each in imports])}")
    print(f"ratio, whole import                 {spread([seconds / each.whole for seconds, each in pairs])}")
    once = [each.decoding_rate * seconds / count for seconds, each in pairs]
    print(f"ratio, once decoding                {spread(once)}", flush=True)


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):9,.2f}  ({min(values):,.2f} to {max(values):,.2f})"


def take_evenly(path: Path, target: Path, count: int) -> None:
    """Write an archive of some entries of another, from all over it, so that they are of all classes."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(target, "w") as fewer:
        files = [info for info in archive.infolist() if not info.is_dir()]
        for info in files[:: max(1, len(files) // count)][:count]:
            fewer.writestr(info, archive.read(info))


def peak_memory(path: Path) -> dict[str, float]:
    """Import a source by the command line; returns the largest megabytes seen, of all its processes and by kind."""
    peaks: dict[str, float] = {}
    with temporary_data():
        command = [sys.executable, "-m", "engine", "import", "measured", str(path)]
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None:
            sample = {pid: (kind_of(pid), megabytes(pid)) for pid in tree(process.pid)}
            now = {"all processes": sum(size for _, size in sample.values())}
            for kind, size in sample.values():
                now[kind] = max(now.get(kind, 0.0), size)
            peaks = {kind: max(peaks.get(kind, 0.0), now.get(kind, 0.0)) for kind in peaks | now}
            time.sleep(SAMPLING_SECONDS)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return peaks


def tree(pid: int) -> Iterator[int]:
    """List a process and all that it started, as far as they are still there."""
    yield pid
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = listing.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from tree(int(child))


def kind_of(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "others"
    kinds = {b"spawn_main": "largest worker", b"engine\0import": "parent"}
    return next((kind for mark, kind in kinds.items() if mark in command), "others")


def megabytes(pid: int) -> float:
    """Return the memory of a process, with its share of pages that several have; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0.0


def compare_memory(archive: Path, folder: Path) -> None:
    """Print the memory that an import takes for few images of an archive, and for all."""
    few = folder / "few.zip"
    take_evenly(archive, few, FEW)
    peaks = {}
    for path in (few, archive):
        with zipfile.ZipFile(path) as opened:
            count = sum(not info.is_dir() for info in opened.infolist())
        peaks[f"{count:,} images"] = peak_memory(path)
    print("\nMemory of an import, MB at its peak, n = 1")
    print(f"{'':20}" + "".join(f"{title:>16}" for title in peaks))
    for kind in ("all processes", "parent", "largest worker", "others"):
        print(f"{kind:20}" + "".join(f"{measured.get(kind, 0.0):16,.1f}" for measured in peaks.values()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zip", type=Path, help=f"an archive of {TINY_SIDE} x {TINY_SIDE} images in class folders")
    parser.add_argument("--photographs", type=int, default=200, help="how many to make")
    parser.add_argument("--repeats", type=int, default=5, help=f"of photographs; tiny images have {TINY_REPEATS}")
    parser.add_argument("--only", default=",".join(PARTS), help="what to measure: some of %(default)s")
    args = parser.parse_args()
    parts = args.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only is {', '.join(sorted(unknown))}, but takes {', '.join(PARTS)}")

    print(f"{platform.processor() or platform.machine()}, {cores()} cores")
    versions = f"Pillow {Image.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, NumPy {np.__version__}"
    print(f"Python {platform.python_version()}, {versions}", flush=True)
    with TemporaryDirectory() as name:
        folder = Path(name)
        if "photographs" in parts:
            make_photographs(folder / "photographs", args.photographs)
            compare("Photographs", plain_photographs, folder / "photographs", SIDE, args.repeats)
        archive = args.zip or folder / "tiny.zip"
        if not args.zip and parts != ["photographs"]:
            make_tiny_images(archive, TINY_COUNT)
        if "tiny" in parts:
            archive.read_bytes()  # so that the first to run does not wait for the disk
            compare("Tiny images", plain_archive, archive, None, TINY_REPEATS)
        if "memory" in parts:
            compare_memory(archive, folder)


if __name__ == "__main__":
    main()
