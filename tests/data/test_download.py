import functools
import gc
import gzip
import hashlib
import io
import pickle
import socket
import subprocess
import sys
import tarfile
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from raw_files import python2_batch, write_files, write_idx, write_mat

from engine.base.errors import LoupeError
from engine.base.paths import PROJECT_ROOT, child_environment, data_root
from engine.data.catalogue import CATALOGUE, Progress, download_folder, download_progress
from engine.data.dataset import Split, is_prepared, open_dataset, prepared_root
from engine.data.download import fetch

DOWNLOADED = [name for name, source in CATALOGUE.items() if source.torchvision]
# One of each kind of archive.
FAMILIES = ["mnist", "emnist-letters", "cifar10", "svhn"]


def assert_prepared(name: str, expected: dict[str, Split]) -> None:
    prepared = open_dataset(name)
    assert prepared.classes == CATALOGUE[name].classes
    assert list(prepared.splits) == ["train", "test"]
    for part, split in expected.items():
        np.testing.assert_array_equal(prepared.splits[part].images, split.images)
        np.testing.assert_array_equal(prepared.splits[part].labels, split.labels)


def contents(root: Path) -> dict[str, bytes]:
    """Read all files of a folder, but not what is prepared from them."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_relative_to(prepared_root())
    }


@pytest.fixture
def raw() -> Path:
    return data_root() / "MNIST" / "raw"


def refusal(name: str) -> str:
    with pytest.raises(LoupeError) as refused:
        fetch(name)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments, **options):
        pytest.fail("a download was tried")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.mark.parametrize("name", DOWNLOADED)
@pytest.mark.usefixtures("offline")
def test_files_that_are_there_are_used_and_nothing_is_downloaded(name):
    expected = write_files(name, data_root())
    before = contents(data_root())
    fetch(name)

    assert_prepared(name, expected)
    assert contents(data_root()) == before


def test_the_source_of_a_dataset_names_its_files():
    for name, source in (
        ("mnist", "torchvision.datasets.MNIST, read from MNIST/raw"),
        ("svhn", "torchvision.datasets.SVHN, read from train_32x32.mat and test_32x32.mat"),
    ):
        write_files(name, data_root())
        fetch(name)
        assert open_dataset(name).source == source


@pytest.mark.usefixtures("offline")
def test_what_torchvision_alone_wants_may_be_missing():
    expected = write_files("cifar10", data_root())
    (data_root() / "cifar-10-batches-py" / "batches.meta").unlink()
    fetch("cifar10")
    assert_prepared("cifar10", expected)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overrun(path: Path) -> None:
    write_idx(path, np.full(40, 10, np.uint8))


def shorten(path: Path) -> None:
    write_idx(path, np.zeros(39, np.uint8))


def leave_none(path: Path) -> None:
    write_idx(path, np.zeros(0, np.uint8))


def flatten(path: Path) -> None:
    write_idx(path, np.zeros((40, 30), np.uint8))


def widen(path: Path) -> None:
    write_idx(path, np.zeros((40, 6, 7), np.uint8))


def make_float(path: Path) -> None:
    write_idx(path, np.zeros((40, 6, 5), np.float32))


def count_from_zero(path: Path) -> None:
    write_idx(path, np.arange(40, dtype=np.uint8) % 26)


def batch_of(data: np.ndarray, labels: np.ndarray, key: bytes = b"labels"):
    return lambda path: path.write_bytes(python2_batch(data, labels, key))


def pickle_of(value: object):
    return lambda path: path.write_bytes(pickle.dumps(value, protocol=2))


def mat_of(**arrays: np.ndarray):
    return lambda path: write_mat(path, **arrays)


LABELS = np.zeros(40, np.uint8)
PIXELS = np.zeros((40, 3072), np.uint8)
PHOTOGRAPHS = np.zeros((32, 32, 3, 40), np.uint8)


@pytest.mark.parametrize(
    ("name", "file", "damage", "reason"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte", cut, "(train-images-idx3-ubyte: "),
        ("mnist", "MNIST/raw/t10k-labels-idx1-ubyte", cut, "(t10k-labels-idx1-ubyte: "),
        ("mnist", "MNIST/raw/train-images-idx3-ubyte", empty, "(train-images-idx3-ubyte: "),
        ("mnist", "MNIST/raw/train-labels-idx1-ubyte", overrun, "a train label is not one of the 10 classes"),
        ("mnist", "MNIST/raw/train-labels-idx1-ubyte", shorten, "40 train images, but 39 labels"),
        ("mnist", "MNIST/raw/train-labels-idx1-ubyte", leave_none, "(train-labels-idx1-ubyte: "),
        ("mnist", "MNIST/raw/train-images-idx3-ubyte", flatten, "dimension"),
        ("mnist", "MNIST/raw/train-images-idx3-ubyte", widen, "train images are (6, 7, 1), the test images (6, 5, 1)"),
        ("mnist", "MNIST/raw/train-images-idx3-ubyte", make_float, "uint8"),
        ("emnist-letters", "EMNIST/raw/emnist-letters-train-labels-idx1-ubyte", count_from_zero, "of the 26 classes"),
        ("cifar10", "cifar-10-batches-py/data_batch_3", cut, "(data_batch_3: "),
        ("cifar10", "cifar-10-batches-py/test_batch", empty, "(test_batch: "),
        ("cifar10", "cifar-10-batches-py/test_batch", batch_of(PIXELS, LABELS + 10), "a test label is not one of the"),
        ("cifar10", "cifar-10-batches-py/test_batch", batch_of(PIXELS, LABELS[1:]), "40 test images, but 39 labels"),
        ("cifar10", "cifar-10-batches-py/test_batch", batch_of(PIXELS[:, 1:], LABELS), "reshape"),
        ("cifar10", "cifar-10-batches-py/test_batch", batch_of(PIXELS.astype(">f4"), LABELS), "images are float32"),
        ("cifar10", "cifar-10-batches-py/test_batch", batch_of(PIXELS, LABELS, b"names"), "(test_batch has no 'fine"),
        ("cifar10", "cifar-10-batches-py/test_batch", pickle_of([1, 2]), "(test_batch: "),
        ("cifar10", "cifar-10-batches-py/test_batch", pickle_of({"data": "text", "labels": [1]}), "(test_batch: "),
        ("cifar100", "cifar-100-python/train", cut, "(train: "),
        ("cifar100", "cifar-100-python/train", batch_of(PIXELS, LABELS + 100, b"fine_labels"), "of the 100 classes"),
        ("svhn", "train_32x32.mat", cut, "(train_32x32.mat: "),
        ("svhn", "test_32x32.mat", empty, "(test_32x32.mat: "),
        ("svhn", "test_32x32.mat", mat_of(X=PHOTOGRAPHS), "(test_32x32.mat has no 'y')"),
        ("svhn", "test_32x32.mat", mat_of(X=PHOTOGRAPHS[..., 0], y=LABELS), "(test_32x32.mat: "),
        ("svhn", "test_32x32.mat", mat_of(X=PHOTOGRAPHS / 255, y=LABELS), "images are float64"),
        ("svhn", "test_32x32.mat", mat_of(X=PHOTOGRAPHS, y=LABELS / 2), "labels are float64"),
        ("svhn", "test_32x32.mat", mat_of(X=PHOTOGRAPHS[:, :, :2], y=LABELS), "(40, 32, 32, 2)"),
        ("svhn", "test_32x32.mat", mat_of(X=PHOTOGRAPHS, y=LABELS + 11), "a test label is not one of the 10 classes"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
@pytest.mark.usefixtures("offline")
def test_damaged_files_are_told_with_their_place(name, file, damage, reason):
    write_files(name, data_root())
    path = data_root() / file
    damage(path)
    message = refusal(name)
    assert message.startswith(f"The files of {CATALOGUE[name].title} in {path.parent} cannot be read (")
    assert reason in message
    assert ": )" not in message
    assert message.endswith("). They may be cut short: delete them and get the dataset again.")
    assert not is_prepared(name)


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.usefixtures("offline")
def test_a_batch_that_would_run_code_is_refused_and_nothing_runs(trap, protocol):
    write_files("cifar10", data_root())
    folder = data_root() / "cifar-10-batches-py"
    (folder / "data_batch_2").write_bytes(pickle.dumps({"data": trap, "labels": [0]}, protocol))

    message = refusal("cifar10")
    assert message.startswith(f"The files of CIFAR-10 in {folder} cannot be read (data_batch_2: it asks for ")
    assert "open, which no array needs). They may be cut short: " in message
    assert not trap.sprung
    assert not is_prepared("cifar10")


def test_blobs_are_the_points_of_scikit_learn():
    from sklearn.datasets import make_blobs
    from sklearn.model_selection import train_test_split

    points, clouds = make_blobs(n_samples=1000, n_features=4, centers=3, cluster_std=2.5, random_state=95)
    parts = train_test_split(points, clouds, test_size=0.15, random_state=95)
    fetch("blobs")

    blobs = open_dataset("blobs")
    assert (blobs.kind, blobs.classes) == ("table", ("0", "1", "2"))
    for name, count, rows, labels in (("train", 850, parts[0], parts[2]), ("test", 150, parts[1], parts[3])):
        assert blobs.splits[name].images.dtype == np.float32
        assert blobs.splits[name].images.shape == (count, 4)
        np.testing.assert_array_equal(blobs.splits[name].images, rows.astype(np.float32))
        np.testing.assert_array_equal(blobs.splits[name].labels, labels)


FETCHING = """
import sys
import sklearn.datasets, sklearn.model_selection
from engine.data import download as fetch
save = fetch.save_dataset
def tell(*arguments):
    save(*arguments)
    print("saved", flush=True)
fetch.save_dataset = tell
print("ready", flush=True)
sys.stdin.readline()
fetch.fetch("digits")
"""


@pytest.mark.processes
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


class Server(ThreadingHTTPServer):
    """Stands in for where torchvision downloads from.

    folder: what is served. asked: the files that were asked for. cut: those of which half is sent.
    """

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder, self.asked, self.cut = folder, set(), set()
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=folder))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.add(self.path[1:])
        super().do_GET()

    def copyfile(self, source, outputfile) -> None:
        content = source.read()
        outputfile.write(content[: len(content) // 2] if self.path[1:] in self.server.cut else content)

    def log_message(self, format: str, *args) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with Server(tmp_path / "served") as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


class Offered:
    """A small dataset as it can be downloaded.

    splits: what is to be read. files: all that is to be put in place, by path. archive: the one to damage, packed.
    """

    def __init__(self, name: str, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch):
        from torchvision import datasets

        self.name, self.splits = name, write_files(name, folder)
        if name.startswith("emnist"):  # both are in the archive
            write_files("emnist-balanced" if name == "emnist-letters" else "emnist-letters", folder)
        self.files = contents(folder)
        self.torchvision = getattr(datasets, CATALOGUE[name].torchvision)
        packed = self._pack(name, folder)
        self.archives = [server.folder / archive for archive in packed]
        for archive, content in zip(self.archives, packed.values(), strict=True):
            archive.write_bytes(content)
        sums = {archive: hashlib.md5(content).hexdigest() for archive, content in packed.items()}
        unpacked = {Path(path).name: hashlib.md5(content).hexdigest() for path, content in self.files.items()}
        for attribute, value in self._addresses(name, server.url, sums, unpacked).items():
            monkeypatch.setattr(self.torchvision, attribute, value)

    def open(self, root: Path, download: bool = False) -> list:
        """Open it through torchvision: every part that it has to be asked for by name, or the training images."""
        parts = CATALOGUE[self.name].parts
        return [
            self.torchvision(root, download=download, **({"split": part} if part else {})) for part in parts or [""]
        ]

    def _pack(self, name: str, folder: Path) -> dict[str, bytes]:
        """Pack the files as their publishers did; returns the archives by name."""
        files, packed = self.files, io.BytesIO()
        match name:
            case "emnist-balanced" | "emnist-letters":
                with zipfile.ZipFile(packed, "w") as archive:
                    for path, content in files.items():
                        archive.writestr(f"gzip/{Path(path).name}.gz", gzip.compress(content))
                return {"gzip.zip": packed.getvalue()}
            case "cifar10" | "cifar100":
                with tarfile.open(fileobj=packed, mode="w:gz") as archive:
                    for path in files:
                        archive.add(folder / path, path)
                return {self.torchvision.filename: packed.getvalue()}
            case "svhn":
                return files
        return {f"{Path(path).name}.gz": gzip.compress(content) for path, content in files.items()}

    def _addresses(self, name: str, url: str, sums: dict[str, str], unpacked: dict[str, str]) -> dict[str, object]:
        """Say where the archives are, and their checksums, as attributes of torchvision's class."""
        match name:
            case "emnist-balanced" | "emnist-letters":
                return {"url": f"{url}gzip.zip", "md5": sums["gzip.zip"]}
            case "cifar10" | "cifar100":
                filename, meta = self.torchvision.filename, self.torchvision.meta
                return {
                    "url": url + filename,
                    "tgz_md5": sums[filename],
                    "train_list": [[file, unpacked[file]] for file, _ in self.torchvision.train_list],
                    "test_list": [[file, unpacked[file]] for file, _ in self.torchvision.test_list],
                    "meta": meta | {"md5": unpacked[meta["filename"]]},
                }
            case "svhn":
                files = {part: f"{part}_32x32.mat" for part in ("train", "test")}
                return {"split_list": {part: [url + file, file, sums[file]] for part, file in files.items()}}
        return {"mirrors": [url], "resources": list(sums.items())}


@pytest.fixture
def offer(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    return lambda name: Offered(name, server, tmp_path / "unpacked", monkeypatch)


# NumPy 2.4.0 to 2.4.4 warn of the arrays that Python 2 pickled, and torchvision lets them.
@pytest.mark.filterwarnings("ignore:dtype:numpy.exceptions.VisibleDeprecationWarning")
@pytest.mark.parametrize("name", DOWNLOADED)
def test_what_is_not_there_is_downloaded_to_where_torchvision_keeps_it(offer, name):
    offered = offer(name)
    fetch(name)
    assert_prepared(name, offered.splits)
    assert contents(data_root()) == offered.files
    assert not download_folder(name).exists()
    assert len(offered.open(data_root())[0]) == 40


@pytest.mark.filterwarnings("ignore:dtype:numpy.exceptions.VisibleDeprecationWarning")
@pytest.mark.parametrize("name", DOWNLOADED)
def test_progress_counts_what_torchvision_downloads_and_not_what_it_unpacks(offer, name):
    offered = offer(name)
    assert download_progress(name) == Progress(0, 0)
    offered.open(download_folder(name), download=True)
    arrived = sum(archive.stat().st_size for archive in offered.archives)
    assert download_progress(name) == Progress(arrived, CATALOGUE[name].download_bytes)


@pytest.mark.parametrize("name", FAMILIES)
def test_files_that_are_not_all_there_are_downloaded(offer, name):
    offered = offer(name)
    write_files(name, data_root())  # others, of random pixels
    (data_root() / CATALOGUE[name].files[-1]).unlink()
    fetch(name)
    assert_prepared(name, offered.splits)
    assert contents(data_root()) == offered.files


@pytest.mark.parametrize(("first", "second"), [("balanced", "letters"), ("letters", "balanced")])
def test_one_archive_serves_both_sets_of_emnist(offer, server, first, second):
    offer(f"emnist-{first}")
    fetch(f"emnist-{first}")
    assert server.asked == {"gzip.zip"}
    server.asked.clear()
    fetch(f"emnist-{second}")
    assert server.asked == set()
    assert len(open_dataset(f"emnist-{second}").splits["train"]) == 40


def test_files_of_the_other_set_of_emnist_are_left_as_they_are(offer):
    offer("emnist-letters")
    write_files("emnist-balanced", data_root())
    before = contents(data_root())
    fetch("emnist-letters")
    after = contents(data_root())
    assert len(after) == 8
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("name", FAMILIES)
def test_a_wrong_checksum_leaves_nothing_half_made_and_a_second_try_works(offer, name):
    offered = offer(name)
    damaged = offered.archives[-1]
    right = damaged.read_bytes()
    damaged.write_bytes(gzip.compress(b"something else"))

    message = refusal(name)
    assert message.startswith(f"{CATALOGUE[name].title} is not on this machine and could not be downloaded (")
    assert "corrupted" in message
    assert f"copy its files into {data_root() / CATALOGUE[name].folder};" in message
    assert not is_prepared(name)
    assert contents(data_root()) == {}
    assert not download_folder(name).exists()

    damaged.write_bytes(right)
    fetch(name)
    assert_prepared(name, offered.splits)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_download_that_breaks_off_leaves_nothing_half_made_and_a_second_try_works(offer, server, name):
    offered = offer(name)
    server.cut = {offered.archives[-1].name}
    assert refusal(name).startswith(f"{CATALOGUE[name].title} is not on this machine and could not be downloaded (")
    assert contents(data_root()) == {}
    assert not download_folder(name).exists()

    server.cut = set()
    fetch(name)
    assert_prepared(name, offered.splits)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_killed_download_left_is_not_used(offer, name):
    offered = offer(name)
    write_files(name, download_folder(name))
    (download_folder(name) / CATALOGUE[name].archives[0]).write_bytes(b"half a fi")
    fetch(name)
    assert_prepared(name, offered.splits)
    assert contents(data_root()) == offered.files


# torchvision drops urllib's error without closing the connection that it holds.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_that_the_server_lacks_is_told(offer, name):
    offer(name).archives[-1].unlink()
    assert "(HTTP Error 404: File not found)" in refusal(name)
    gc.collect()  # so that the warning comes here


def test_the_timeout_of_other_sockets_is_left_as_it_was(offer, own_timeout):
    offer("mnist").archives[-1].write_bytes(b"of another checksum")
    refusal("mnist")
    assert socket.getdefaulttimeout() == own_timeout


@pytest.mark.processes
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


@pytest.mark.parametrize("name", ["digits", "blobs", "mnist"])
def test_a_data_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch, name):
    (tmp_path / "occupied").write_text("a file, not a folder")
    monkeypatch.setenv("LOUPE_DATA", str(tmp_path / "occupied"))
    assert refusal(name) == (
        f"{tmp_path / 'occupied'} cannot be written (Not a directory). Loupe keeps what it makes there: "
        "make it writable, or point LOUPE_DATA and LOUPE_RUNS at folders that are."
    )
