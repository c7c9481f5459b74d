import hashlib
import io
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import python
from safetensors.torch import load_file
from torchvision import models

from engine.base.errors import LoupeError
from engine.base.paths import data_root, weights_folder
from engine.data.catalogue import Progress
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.data.download import fetch
from engine.networks.model_file import save_model
from engine.networks.models import build_model, head_path
from engine.networks.preprocessing import FIXED, Preprocessing
from engine.recipes.backbones import BACKBONES
from engine.recipes.recipe import Recipe
from engine.runs.run import Run, create_run, require_sources
from engine.training.pretrained import (
    UNUSED,
    downloaded_file,
    earlier_preprocessing,
    fetch_weights,
    load_pretrained,
    preprocessing_of,
)

SMALLEST = "squeezenet1_1"  # of torchvision's files of weights, 5 MB


def published(name: str, num_classes: int = 1000) -> bytes:
    """Make what torchvision offers as a network's weights: a state_dict as torch.save writes it."""
    torch.manual_seed(1)
    content = io.BytesIO()
    torch.save(models.get_model(name, num_classes=num_classes).state_dict(), content)
    return content.getvalue()


@pytest.fixture(scope="module")
def weights() -> bytes:
    return published(SMALLEST)


# Downloads, from a server that stands in for torchvision's


class Server(ThreadingHTTPServer):
    """content: what it answers with, None for 404. announced: the length that it tells of that.

    Each eighth of it is sent when ``gate`` lets it, if there is one.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.content: bytes | None = None
        self.announced = 0
        self.gate: threading.Semaphore | None = None
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content = self.server.content
        self.server.asked.append(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.announced))
        self.end_headers()
        part = len(content) // 8 + 1
        for start in range(0, len(content), part):
            if self.server.gate:
                self.server.gate.acquire(timeout=60)
            self.wfile.write(content[start : start + part])

    def log_message(self, format: str, *args) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


Offer = Callable[..., str]


@pytest.fixture
def offer(server: Server) -> Iterator[Offer]:
    """Have torchvision's address of the weights lead to a server that answers so; returns the address."""
    about = models.get_model_weights(SMALLEST).DEFAULT.value
    before = about.url

    def change(content: bytes | None, announced: int | None = None, digest: str | None = None, port: int = 0) -> str:
        server.content, server.announced = content, len(content or b"") if announced is None else announced
        digest = digest or hashlib.sha256(content or b"").hexdigest()[:8]
        address = f"http://127.0.0.1:{port or server.server_port}/models/{SMALLEST}-{digest}.pth"
        object.__setattr__(about, "url", address)  # it is frozen
        return address

    yield change
    object.__setattr__(about, "url", before)


def left_behind() -> set[str]:
    """List what is in the folder of weights, but for locks, which are empty."""
    return {path.name for path in weights_folder().glob("*") if path.suffix != ".lock" or path.stat().st_size}


@pytest.mark.slow
def test_weights_are_downloaded_with_progress_that_rises(server: Server, offer: Offer, weights: bytes) -> None:
    offer(weights)
    server.gate = threading.Semaphore(0)
    told: list[Progress] = []
    for progress in fetch_weights(SMALLEST):
        told.append(progress)
        assert not downloaded_file(SMALLEST).exists() or len(left_behind()) == 1
        server.gate.release()
    file = data_root() / "weights" / "squeezenet1_1-b8a52dc0.pth"
    assert downloaded_file(SMALLEST) == file
    assert file.read_bytes() == weights
    assert left_behind() == {file.name}

    done = [progress.done for progress in told]
    assert done == sorted(done) and len(set(done)) >= 4
    assert {progress.total for progress in told} == {round(4.729 * 2**20)}
    assert len(weights) == pytest.approx(told[0].total, rel=0.01)  # what the table says is the file's size
    assert max(done) <= told[0].total

    assert list(fetch_weights(SMALLEST)) == []
    assert len(server.asked) == 1


def test_downloaded_weights_are_those_that_a_network_begins_with(server: Server, offer: Offer, weights: bytes) -> None:
    offer(weights)
    list(fetch_weights(SMALLEST))
    recipe = Recipe(model=SMALLEST, weights="imagenet")
    model = build_model(SMALLEST, (32, 32, 3), 3)
    head = {name: value.clone() for name, value in model.state_dict().items() if name.startswith(head_path(model))}
    note = load_pretrained(model, recipe)
    theirs = torch.load(io.BytesIO(weights), weights_only=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, head[name] if name in head else theirs[name]), name
    assert note == (
        "50 tensors of squeezenet1_1-b8a52dc0.pth were taken; it has no head, and a new one for 3 classes begins "
        "untrained."
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "googlenet", "shufflenet_v2_x0_5", "mnasnet0_5"])
def test_weights_as_torchvision_publishes_them_fit(name: str) -> None:
    weights_folder().mkdir(parents=True)
    settings = {"init_weights": False} if name == "googlenet" else {}  # its file has the classifiers half way
    published = models.get_model(name, **settings)
    torch.save(published.state_dict(), downloaded_file(name))
    model = build_model(name, (32, 32, 3), 3)
    note = load_pretrained(model, Recipe(model=name, weights="imagenet"))
    assert note and "its head for 1,000 classes was replaced by a new one for 3" in note
    assert "other" not in note.replace("another", "")
    theirs, head = published.state_dict(), head_path(model)
    for key, value in model.state_dict().items():
        if key.startswith(f"{head}."):
            assert value.shape[0] == 3
        else:
            assert torch.equal(value, theirs[key]), key


@pytest.mark.parametrize("name", UNUSED)
def test_what_is_left_unused_of_a_file_is_in_torchvisions_network(name: str) -> None:
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        theirs, ours = models.get_model(name, **settings).state_dict(), build_model(name, (32, 32, 3), 3).state_dict()
    for start in UNUSED[name]:
        assert any(key.startswith(start) for key in theirs) and not any(key.startswith(start) for key in ours)


def failure(address: str) -> str:
    """Download, which must fail with a sentence that names address and folder and leave nothing; return the reason."""
    with pytest.raises(LoupeError) as failed:
        list(fetch_weights(SMALLEST))
    message = str(failed.value)
    said = re.fullmatch(
        r"The weights are not on this machine and could not be downloaded \((.+)\)\. Connect to the internet and try "
        r"again, or get (\S+) elsewhere and put it into (.+)\.",
        message,
    )
    assert said, message
    assert said.group(2, 3) == (address, str(weights_folder()))
    assert left_behind() == set()
    assert not downloaded_file(SMALLEST).exists()
    return said[1]


def test_a_server_without_the_file_is_told(offer: Offer) -> None:
    assert failure(offer(None)) == "HTTP Error 404: Not Found"


def test_the_timeout_of_other_sockets_is_left_as_it_was(offer: Offer, own_timeout: float) -> None:
    failure(offer(None))
    assert socket.getdefaulttimeout() == own_timeout


def test_a_wrong_hash_is_told(offer: Offer, weights: bytes) -> None:
    assert 'invalid hash value (expected "0123abcd"' in failure(offer(weights, digest="0123abcd"))


def test_a_server_that_hangs_up_half_way_is_told(offer: Offer, weights: bytes) -> None:
    whole = hashlib.sha256(weights).hexdigest()[:8]
    half = weights[: len(weights) // 2]
    assert "invalid hash value" in failure(offer(half, announced=len(weights), digest=whole))


def test_a_server_that_says_nothing_and_hangs_up_is_told(
    server: Server, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "do_GET", lambda handler: None)
    assert failure(offer(b"")) == "Remote end closed connection without response"


def test_a_machine_without_a_network_is_told(offer: Offer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # where nobody listens
        assert "Connection refused" in failure(offer(b"", port=port))


def test_after_a_failure_it_can_be_tried_again(offer: Offer, weights: bytes) -> None:
    failure(offer(weights, digest="0123abcd"))
    offer(weights)
    list(fetch_weights(SMALLEST))
    assert downloaded_file(SMALLEST).read_bytes() == weights


def test_a_folder_that_cannot_be_made_is_told(server: Server, offer: Offer, weights: bytes) -> None:
    offer(weights)
    data_root().mkdir()
    weights_folder().write_text("a file in its place")
    with pytest.raises(LoupeError, match=rf"{re.escape(str(weights_folder()))} cannot be written \(File exists\)"):
        list(fetch_weights(SMALLEST))
    assert server.asked == []


def test_a_file_that_was_put_there_by_hand_is_taken_without_a_network(server: Server, offer: Offer) -> None:
    offer(None)
    weights_folder().mkdir(parents=True)
    downloaded_file(SMALLEST).write_bytes(b"by hand")
    assert list(fetch_weights(SMALLEST)) == []
    assert downloaded_file(SMALLEST).read_bytes() == b"by hand"
    assert server.asked == []


@pytest.mark.slow
def test_what_a_download_that_was_killed_has_left_is_cleared_and_not_counted(
    server: Server, offer: Offer, weights: bytes
) -> None:
    offer(weights)
    server.gate = threading.Semaphore(0)
    weights_folder().mkdir(parents=True)
    killed = weights_folder() / f".{downloaded_file(SMALLEST).name}.part.0a1b.partial"
    killed.write_bytes(bytes(len(weights)))
    downloading = fetch_weights(SMALLEST)
    assert next(downloading).done == 0
    server.gate.release(8)
    list(downloading)
    assert left_behind() == {downloaded_file(SMALLEST).name}


@pytest.mark.slow
def test_a_download_that_is_given_up_leaves_nothing(server: Server, offer: Offer, weights: bytes) -> None:
    offer(weights)
    server.gate = threading.Semaphore(2)
    downloading = fetch_weights(SMALLEST)
    next(downloading)
    downloading.close()
    assert left_behind() == set()
    server.gate.release(8)


FETCHING = """
import sys
from torchvision import models
from engine.training.pretrained import fetch_weights
object.__setattr__(models.get_model_weights(sys.argv[1]).DEFAULT.value, "url", sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for progress in fetch_weights(sys.argv[1]):
    pass
print("done", flush=True)
"""


@pytest.mark.processes
def test_two_processes_at_once_download_once(server: Server, offer: Offer, weights: bytes) -> None:
    arguments = ("-c", FETCHING, SMALLEST, offer(weights))
    server.gate = threading.Semaphore(0)
    processes = [python(*arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    server.gate.release(8)
    assert [process.communicate(timeout=60)[0] for process in processes] == ["done\n", "done\n"]
    assert [process.returncode for process in processes] == [0, 0]
    assert len(server.asked) == 1
    assert downloaded_file(SMALLEST).read_bytes() == weights


def test_every_address_of_torchvisions_has_a_hash_that_is_checked_and_the_name_of_the_table() -> None:
    for name, backbone in BACKBONES.items():
        file = models.get_model_weights(name).DEFAULT.url.rsplit("/", 1)[1]
        found = torch.hub.HASH_REGEX.search(file)
        assert found and len(found[1]) >= 8, file
        assert downloaded_file(name) == weights_folder() / file == weights_folder() / backbone.file


# What the weights of an earlier run, or a file, bring with them


def earlier_run(recipe: Recipe, preprocessing: Preprocessing) -> Run:
    """Make a run as far as anybody sees who starts from its weights."""
    run = create_run(recipe)
    model = build_model(recipe.model, preprocessing.model_shape, len(preprocessing.classes), recipe.head)
    save_model(run.weights, model.state_dict(), recipe, preprocessing)
    return run


OF_COLOURS = Preprocessing((16, 14, 3), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), ("x", "y"))
OF_GREY = Preprocessing((16, 14, 1), (0.6,), (0.7,), ("x", "y"))


@pytest.fixture
def grey() -> Dataset:
    save_dataset("grey", ("a", "b"), {"train": Split(np.zeros((8, 9, 7, 1), np.uint8), np.arange(8) % 2)}, "zeros")
    return open_dataset("grey")


def test_a_network_of_ones_own_begins_with_the_size_and_scaling_of_the_run_that_it_starts_from(
    colours: Dataset,
) -> None:
    run = earlier_run(Recipe(model="convnet"), OF_COLOURS)
    recipe = Recipe(dataset="colours", model="convnet", weights=run.id)
    assert earlier_preprocessing(recipe) == OF_COLOURS
    assert preprocessing_of(recipe, colours) == Preprocessing(
        (16, 14, 3), OF_COLOURS.mean, OF_COLOURS.std, colours.classes
    )
    sized = Recipe(dataset="colours", model="convnet", weights=run.id, size=20)
    assert preprocessing_of(sized, colours).shape == (20, 20, 3)
    assert preprocessing_of(sized, colours).mean == OF_COLOURS.mean
    scaled = Recipe(dataset="colours", model="convnet", weights=run.id, scaling="half")
    assert preprocessing_of(scaled, colours) == Preprocessing((16, 14, 3), (0.5,) * 3, (0.5,) * 3, colours.classes)


def test_grey_images_are_given_the_channels_of_the_run(grey: Dataset) -> None:
    run = earlier_run(Recipe(model="convnet"), OF_COLOURS)
    recipe = Recipe(dataset="grey", model="convnet", weights=run.id)
    found = preprocessing_of(recipe, grey)
    assert found == Preprocessing((16, 14, 1), OF_COLOURS.mean, OF_COLOURS.std, ("a", "b"))
    assert found.model_shape == (16, 14, 3)
    model = build_model("convnet", found.model_shape, 2)
    assert load_pretrained(model, recipe) == (
        f"20 tensors of the run {run.id} were taken, its head for 2 classes among them."
    )


def test_a_run_on_grey_images_does_not_fit_colours_and_says_so(colours: Dataset) -> None:
    run = earlier_run(Recipe(model="convnet"), OF_GREY)
    recipe = Recipe(dataset="colours", model="convnet", weights=run.id)
    found = preprocessing_of(recipe, colours)
    assert (found.mean, found.shape) == ((0.0,) * 3, (16, 14, 3))
    model = build_model("convnet", found.model_shape, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(LoupeError) as refused:
        load_pretrained(model, recipe)
    assert str(refused.value) == (
        f"the run {run.id} does not fit convnet: 0.weight is 32 x 1 x 3 x 3 in the file and 32 x 3 x 3 x 3 in convnet. "
        "Choose the network that it was made for."
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_run_of_a_table_passes_on_its_scaling() -> None:
    fetch("blobs")
    blobs = open_dataset("blobs")
    measured = Preprocessing((4,), (1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0), blobs.classes)
    run = earlier_run(Recipe(dataset="blobs", model="mlp", scaling="dataset"), measured)
    recipe = Recipe(dataset="blobs", model="mlp", weights=run.id)
    assert preprocessing_of(recipe, blobs) == measured


@pytest.mark.parametrize(
    ("model", "scaling"), [("resnet18", "imagenet"), ("efficientnet_v2_l", "half"), ("inception_v3", "imagenet")]
)
def test_scaling_is_that_of_torchvisions_weights_where_there_are_any(
    colours: Dataset, grey: Dataset, model: str, scaling: str
) -> None:
    of_weights = tuple(value * (3 if len(value) == 1 else 1) for value in FIXED[scaling])
    unit = ((0.0,) * 3, (1.0,) * 3)
    for weights, expected in (("imagenet", of_weights), ("theirs.pth", of_weights), ("none", unit)):
        for dataset in (colours, grey):
            found = preprocessing_of(Recipe(dataset=dataset.name, model=model, weights=weights), dataset)
            assert (found.mean, found.std) == expected
            assert found.model_shape[2] == 3 and found.shape[2] == dataset.image_shape[2]
    chosen = Recipe(dataset="colours", model=model, weights="imagenet", scaling="unit")
    assert preprocessing_of(chosen, colours).mean == (0.0,) * 3


def test_a_network_of_torchvisions_that_was_trained_here_passes_on_its_scaling(colours: Dataset) -> None:
    trained = Preprocessing((40, 40, 3), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), ("x", "y"))
    run = earlier_run(Recipe(model="squeezenet1_1"), trained)
    found = preprocessing_of(Recipe(dataset="colours", model="squeezenet1_1", weights=run.id), colours)
    assert found == Preprocessing((40, 40, 3), trained.mean, trained.std, colours.classes)


@pytest.mark.parametrize(
    ("model", "size", "shape"),
    [
        ("resnet18", 0, (12, 10)),
        ("resnet18", 224, (224, 224)),
        ("alexnet", 0, (63, 63)),
        ("vit_b_16", 0, (224, 224)),
        ("vit_b_16", 224, (224, 224)),
        ("maxvit_t", 0, (224, 224)),
        ("convnet", 0, (12, 10)),
        ("convnet", 9, (9, 9)),
    ],
)
def test_images_are_brought_to_a_size_that_the_network_takes(
    colours: Dataset, model: str, size: int, shape: tuple[int, int]
) -> None:
    recipe = Recipe(dataset="colours", model=model, size=size)
    assert preprocessing_of(recipe, colours).shape == (*shape, 3)


@pytest.mark.parametrize(
    ("model", "size", "sentence"),
    [
        (
            "vit_b_16",
            256,
            "size is 256, but vit_b_16 takes images of 224 x 224 pixels only. Set size to 0 or 224.",
        ),
        (
            "alexnet",
            62,
            "size is 62, but alexnet needs images of at least 63 x 63 pixels. Set size to 224, which its weights were "
            "trained with, or to 0.",
        ),
    ],
)
def test_a_size_that_the_network_does_not_take_is_refused(
    colours: Dataset, model: str, size: int, sentence: str
) -> None:
    with pytest.raises(LoupeError) as refused:
        preprocessing_of(Recipe(dataset="colours", model=model, size=size), colours)
    assert str(refused.value) == sentence


def test_a_run_of_another_network_is_refused(colours: Dataset) -> None:
    run = earlier_run(Recipe(model="convnet"), OF_COLOURS)
    recipe = Recipe(dataset="colours", model="mlp", weights=run.id)
    model = build_model("mlp", (12, 10, 3), 3)
    for start in (lambda: preprocessing_of(recipe, colours), lambda: load_pretrained(model, recipe)):
        with pytest.raises(LoupeError) as refused:
            start()
        assert str(refused.value) == (
            f"The run {run.id} trained convnet, and its weights do not fit mlp. Set model to convnet, or choose "
            "another run."
        )


def test_a_run_that_has_saved_no_model_is_refused(colours: Dataset) -> None:
    run = create_run(Recipe(model="convnet"))
    with pytest.raises(LoupeError) as refused:
        preprocessing_of(Recipe(dataset="colours", model="convnet", weights=run.id), colours)
    assert str(refused.value) == (
        f"The run {run.id} has no weights: it did not get as far as saving a model. Choose another."
    )


def test_a_run_whose_file_is_damaged_is_refused(colours: Dataset) -> None:
    run = earlier_run(Recipe(model="convnet"), OF_COLOURS)
    run.weights.write_bytes(run.weights.read_bytes()[:-50])
    with pytest.raises(LoupeError, match=rf"^weights.safetensors of the run {run.id} cannot be used: it is damaged"):
        preprocessing_of(Recipe(dataset="colours", model="convnet", weights=run.id), colours)


@pytest.mark.parametrize("name", ["nope", "ImageNet", "weights.onnx", ""])
def test_a_name_of_nothing_is_answered_with_what_may_stand_there(colours: Dataset, name: str) -> None:
    with pytest.raises(LoupeError) as refused:
        preprocessing_of(Recipe(dataset="colours", weights=name), colours)
    assert str(refused.value).startswith(
        f"weights is {name!r}, but must be none, imagenet, the name of an earlier run, or a file (.pth, "
        f".pt, .bin, .ckpt, .safetensors). There is no run {name!r}"
    )


def test_new_weights_are_left_as_they_are(colours: Dataset) -> None:
    model = build_model("mlp", (12, 10, 3), 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert load_pretrained(model, Recipe(model="mlp")) is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_file_at_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    theirs, ours = (build_model("mlp", (12, 10, 3), 3) for _ in range(2))
    assert not torch.equal(theirs[1].weight, ours[1].weight)
    torch.save(theirs.state_dict(), tmp_path / "mine.pth")
    recipe = Recipe(model="mlp", weights="~/mine.pth")
    assert load_pretrained(ours, recipe) == ("4 tensors of mine.pth were taken, its head for 3 classes among them.")
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LoupeError, match=r"There is no file .*mine\.pth.*Check its name and folder"):
        load_pretrained(build_model("mlp", (4,), 3), Recipe(model="mlp", weights=str(tmp_path / "mine.pth")))


def test_a_file_may_have_any_name_if_its_folder_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = (build_model("mlp", (12, 10, 3), 3) for _ in range(2))
    torch.save(theirs.state_dict(), tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert load_pretrained(ours, Recipe(model="mlp", weights="./mine"))
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize("name", ["mine.pt", "20260101-120000-mine.safetensors"])
def test_a_run_may_be_called_like_a_file(colours: Dataset, name: str) -> None:
    run = earlier_run(Recipe(model="mlp"), OF_COLOURS)
    theirs = load_file(run.weights)
    renamed = Run(run.path.rename(run.path.with_name(name)))
    os.utime(renamed.path / "recipe.json", (1, 1))  # a fresh one would be starting, and could not be deleted
    recipe = Recipe(dataset="colours", model="mlp", weights=name)
    require_sources(recipe)
    assert earlier_preprocessing(recipe) == OF_COLOURS
    for named in (name, str(renamed.path)):
        ours = build_model("mlp", OF_COLOURS.model_shape, len(OF_COLOURS.classes))
        assert load_pretrained(ours, replace(recipe, weights=named)).startswith(f"4 tensors of the run {name} were")
        assert all(torch.equal(value, theirs[tensor]) for tensor, value in ours.state_dict().items())
    shutil.rmtree(renamed.path)
    with pytest.raises(LoupeError) as refused:
        require_sources(recipe)
    assert str(refused.value) == (
        f"weights is {name!r}, but there is no such file, nor a run of that name. It must be none, imagenet, the name "
        "of an earlier run, or a file (.pth, .pt, .bin, .ckpt, .safetensors): give the whole path of one."
    )
