import functools
import gc
import gzip
import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from engine.catalogue import download_folder
from engine.dataset import is_prepared, open_dataset, prepared_root
from engine.errors import LoupeError
from engine.fetch import fetch
from engine.paths import PROJECT_ROOT, child_environment, data_root

TYPES = {np.dtype(np.uint8): 8, np.dtype(np.float32): 13}


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array as MNIST's files are: two zeros, the type, the dimensions, each big-endian, then the values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4) for size in array.shape)
    path.write_bytes(bytes([0, 0, TYPES[array.dtype], array.ndim]) + sizes + array.tobytes())


def write_mnist(folder: Path) -> dict[str, np.ndarray]:
    """Write a small MNIST: 40 and 10 images, 6 pixels high and 5 wide. Returns the arrays by file name."""
    arrays = {}
    for part, count in (("train", 40), ("t10k", 10)):
        arrays[f"{part}-images-idx3-ubyte"] = np.random.randint(0, 256, (count, 6, 5)).astype(np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(count) % 10).astype(np.uint8)
    for name, array in arrays.items():
        write_idx(folder / name, array)
    return arrays


@pytest.fixture
def raw() -> Path:
    return data_root() / "MNIST" / "raw"


def refusal(name: str) -> str:
    with pytest.raises(LoupeError) as refused:
        fetch(name)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def mnist_class() -> type:
    from torchvision.datasets import MNIST

    return MNIST


@pytest.fixture
def no_mirrors(mnist_class: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist_class, "mirrors", [])


@pytest.mark.usefixtures("no_mirrors")
def test_files_that_are_there_are_used_and_nothing_is_downloaded(raw):
    arrays = write_mnist(raw)
    before = sorted(raw.rglob("*"))
    fetch("mnist")

    mnist = open_dataset("mnist")
    assert mnist.classes == tuple("0123456789")
    assert "MNIST/raw" in mnist.source
    for name, part in (("train", "train"), ("test", "t10k")):
        np.testing.assert_array_equal(mnist.splits[name].images[..., 0], arrays[f"{part}-images-idx3-ubyte"])
        np.testing.assert_array_equal(mnist.splits[name].labels, arrays[f"{part}-labels-idx1-ubyte"])
    assert sorted(raw.rglob("*")) == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overrun(path: Path) -> None:
    write_idx(path, np.full(40, 10, np.uint8))


def shorten(path: Path) -> None:
    write_idx(path, np.zeros(39, np.uint8))


def flatten(path: Path) -> None:
    write_idx(path, np.zeros((40, 30), np.uint8))


def make_float(path: Path) -> None:
    write_idx(path, np.zeros((40, 6, 5), np.float32))


@pytest.mark.parametrize(
    ("file", "damage", "reason"),
    [
        ("train-images-idx3-ubyte", cut, ""),
        ("t10k-labels-idx1-ubyte", cut, ""),
        ("train-images-idx3-ubyte", empty, ""),
        ("train-labels-idx1-ubyte", overrun, "a train label is not one of the 10 classes"),
        ("train-labels-idx1-ubyte", shorten, "40 train images, but 39 labels"),
        ("train-images-idx3-ubyte", flatten, "dimension"),
        ("train-images-idx3-ubyte", make_float, "uint8"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
@pytest.mark.usefixtures("no_mirrors")
def test_damaged_files_are_told_with_their_place(raw, file, damage, reason):
    write_mnist(raw)
    damage(raw / file)
    message = refusal("mnist")
    assert message.startswith(f"The files of MNIST in {raw} cannot be read (")
    assert reason in message
    assert "read ()" not in message
    assert message.endswith("delete them and get the dataset again.")
    assert not is_prepared("mnist")


FETCHING = """
import sys
import sklearn.datasets, sklearn.model_selection
from engine import fetch
save = fetch.save_dataset
def tell(*arguments):
    save(*arguments)
    print("saved", flush=True)
fetch.save_dataset = tell
print("ready", flush=True)
sys.stdin.readline()
fetch.fetch("digits")
"""


def test_of_two_processes_that_fetch_at_once_one_does_the_work():
    start = functools.partial(
        subprocess.Popen,
        [sys.executable, "-c", FETCHING],
        cwd=PROJECT_ROOT,
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with start() as one, start() as two:
        assert one.stdout.readline() == two.stdout.readline() == "ready\n"
        for process in (one, two):
            process.stdin.write("\n")
            process.stdin.flush()
        said = one.stdout.read() + two.stdout.read()
    assert (one.returncode, two.returncode) == (0, 0)
    assert said == "saved\n"
    assert len(open_dataset("digits").splits["train"]) == 1437
    assert [path.name for path in prepared_root().iterdir() if path.is_dir()] == ["digits"]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, mnist_class: type, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand in for torchvision's mirror with a small MNIST, packed; yields the folder that is served."""
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    served = tmp_path / "served"
    write_mnist(served / "unpacked")
    resources = []
    for name, _ in mnist_class.resources:
        content = gzip.compress((served / "unpacked" / name.removesuffix(".gz")).read_bytes())
        (served / name).write_bytes(content)
        resources.append((name, hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(mnist_class, "resources", resources)
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=served)) as serving:
        monkeypatch.setattr(mnist_class, "mirrors", [f"http://127.0.0.1:{serving.server_port}/"])
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        serving.shutdown()
        thread.join()


def test_what_is_not_there_is_downloaded_to_where_torchvision_keeps_it(server, raw, mnist_class):
    fetch("mnist")
    assert {name: len(split) for name, split in open_dataset("mnist").splits.items()} == {"train": 40, "test": 10}
    for file in (server / "unpacked").iterdir():
        assert (raw / file.name).read_bytes() == file.read_bytes()
    assert not download_folder("mnist").exists()
    assert len(mnist_class(data_root(), download=False)) == 40


def test_files_that_are_not_all_there_are_downloaded(server, raw):
    write_mnist(raw)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    fetch("mnist")
    for file in (server / "unpacked").iterdir():
        assert (raw / file.name).read_bytes() == file.read_bytes()


def test_a_wrong_checksum_leaves_nothing_half_made_and_a_second_try_works(server, raw):
    labels = server / "t10k-labels-idx1-ubyte.gz"
    right = labels.read_bytes()
    labels.write_bytes(gzip.compress(b"something else"))

    message = refusal("mnist")
    assert message.startswith("MNIST is not on this machine and could not be downloaded (")
    assert "corrupted" in message
    assert not is_prepared("mnist")
    assert not raw.exists()
    assert not download_folder("mnist").exists()

    labels.write_bytes(right)
    fetch("mnist")
    assert len(open_dataset("mnist").splits["test"]) == 10


def test_what_a_killed_download_left_is_not_used(server, raw):
    left = download_folder("mnist") / "MNIST" / "raw"
    write_mnist(left)
    (left / "train-images-idx3-ubyte.gz").write_bytes(b"half a fi")
    fetch("mnist")
    assert (raw / "train-images-idx3-ubyte").read_bytes() == (
        server / "unpacked" / "train-images-idx3-ubyte"
    ).read_bytes()


# torchvision drops urllib's error without closing the connection that it holds.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_file_that_the_server_lacks_is_told(server):
    (server / "train-labels-idx1-ubyte.gz").unlink()
    assert "(HTTP Error 404: File not found)" in refusal("mnist")
    gc.collect()  # so that the warning comes here


def test_without_a_network_the_command_line_says_where_to_put_the_files(raw, monkeypatch):
    for variable in ("http_proxy", "https_proxy"):  # where nobody listens
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    command = [sys.executable, "-m", "engine", "get", "mnist"]
    ended = subprocess.run(
        command, cwd=PROJECT_ROOT, env=child_environment(), capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: MNIST is not on this machine and could not be downloaded (")
    assert "refused" in line
    assert f"copy its files into {raw};" in line
    assert not raw.exists()


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_a_data_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch, name):
    (tmp_path / "occupied").write_text("a file, not a folder")
    monkeypatch.setenv("LOUPE_DATA", str(tmp_path / "occupied"))
    assert refusal(name) == (
        f"{tmp_path / 'occupied'} cannot be written (Not a directory). Loupe keeps what it makes there: "
        "make it writable, or point LOUPE_DATA and LOUPE_RUNS at folders that are."
    )
