import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.base.errors import LoupeError
from engine.base.machine import cores, has_bfloat16
from engine.data.dataset import Dataset, open_dataset
from engine.data.download import fetch
from engine.recipes.recipe import Recipe, change, find_recipe
from engine.training import tuning
from engine.training.loop import Training, fit
from engine.training.measurements import forget_measurements
from engine.training.tuning import apply_settings, choose_device, resolve

OPEN = Recipe(dataset="colours", model="mlp", batch_size=16, device="cpu", epochs=2)
NARROW = change(OPEN, {"threads": 1, "precision": "float32"})  # whose ways take little time to try
PRECISIONS = ("bfloat16", "float32") if has_bfloat16("cpu") else ("float32",)


@pytest.fixture(autouse=True)
def as_this_process_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ways are tried for less long than they are, and what is set for the process is as before afterwards."""
    monkeypatch.setattr(tuning, "TRYING_SECONDS", 0.05)
    before = torch.backends.mkldnn.enabled
    yield
    torch.backends.mkldnn.set_flags(before)


@pytest.fixture
def remembered(tmp_path: Path) -> Path:
    return tmp_path / "data" / "quickest.json"


def assert_valid(resolved: Recipe, asked: Recipe = OPEN) -> None:
    """All that was open is chosen, and nothing else has changed."""
    assert resolved.threads in (1, cores())
    assert resolved.precision in PRECISIONS
    assert resolved.convolutions in ("onednn", "native")
    as_asked = {name: getattr(asked, name) for name in ("threads", "precision", "convolutions")}
    assert replace(resolved, **as_asked) == asked


@pytest.mark.slow
def test_what_is_open_is_chosen_and_then_stays(colours: Dataset) -> None:
    resolved = resolve(OPEN, colours)
    assert_valid(resolved)
    assert resolve(resolved, colours) == resolved


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        {"threads": 1},
        {"precision": "float32"},
        {"precision": "bfloat16"},
        {"convolutions": "native"},
        {"convolutions": "onednn"},
        {"threads": 1, "convolutions": "native"},
        {"precision": "float32", "convolutions": "native"},
    ],
    ids=str,
)
def test_what_is_chosen_stays(colours: Dataset, chosen: dict) -> None:
    resolved = resolve(change(OPEN, chosen), colours)
    assert {name: getattr(resolved, name) for name in chosen} == chosen
    opened = {name: value for name, value in vars(OPEN).items() if name in chosen}
    for name in ("threads", "precision", "convolutions"):
        assert getattr(resolved, name) not in (0, "auto")
    assert replace(resolved, threads=0, precision="auto", convolutions="auto") == change(OPEN, opened)


def test_where_nothing_is_open_nothing_is_tried(colours: Dataset, remembered: Path) -> None:
    chosen = change(OPEN, {"threads": 1, "precision": "bfloat16", "convolutions": "native"})
    assert resolve(chosen, colours) == chosen
    assert not remembered.exists()


@pytest.mark.slow
def test_a_way_that_was_found_before_is_taken_without_trying(colours: Dataset, remembered: Path) -> None:
    resolve(OPEN, colours)
    (key,) = json.loads(remembered.read_text())
    for threads in {1, cores()}:
        for convolutions in ("onednn", "native"):
            way = {"threads": threads, "precision": "float32", "convolutions": convolutions}
            remembered.write_text(json.dumps({key: way}))
            before = remembered.stat().st_mtime_ns, remembered.read_bytes()
            assert resolve(OPEN, colours) == change(OPEN, way)
            assert (remembered.stat().st_mtime_ns, remembered.read_bytes()) == before


@pytest.mark.slow
def test_what_was_found_is_kept_until_it_is_to_be_measured_again(
    colours: Dataset, remembered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(NARROW, colours)
    (key,) = json.loads(remembered.read_text())
    # As it was written on a busy machine: none of the ways is what the other is.
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.1, 0.1))
    for convolutions in ("native", "onednn"):
        busy = {"threads": 1, "precision": "float32", "convolutions": convolutions, "load": 7.5}
        remembered.write_text(json.dumps({key: busy, "another machine": WAY}))
        assert resolve(NARROW, colours) == change(NARROW, {"convolutions": convolutions})
        assert json.loads(remembered.read_text()) == {key: busy, "another machine": WAY}
    assert forget_measurements() == 1
    assert json.loads(remembered.read_text()) == {"another machine": WAY}
    resolved = resolve(NARROW, colours)
    found = json.loads(remembered.read_text())
    assert found.keys() == {key, "another machine"}
    assert found[key] == {name: getattr(resolved, name) for name in WAY}


@pytest.mark.slow
def test_what_makes_steps_take_another_time_is_tried_for_itself(make_colours, remembered: Path) -> None:
    colours, larger = make_colours(), make_colours("larger", height=20)
    for others in (
        {},
        {"model": "convnet"},
        {"batch_size": 8},
        {"optimizer": "sgd"},
        {"convolutions": "auto", "precision": "auto"},
    ):
        resolve(change(NARROW, others), colours)
    resolve(NARROW, larger)
    assert len(json.loads(remembered.read_text())) == 6
    # The order of images, say, does not matter to it.
    for alike in ({"seed": 7}, {"learning_rate": 0.1}, {"epochs": 3}, {"log_every": 3}):
        resolve(change(NARROW, alike), colours)
    assert len(json.loads(remembered.read_text())) == 6


DAMAGE = {
    "empty": lambda key: "",
    "cut short": lambda key: json.dumps({key: {"threads": 1}})[:-9],
    "no text": lambda key: "\udcff\udcfe",
    "nested": lambda key: "[" * 100_000,
    "another document": lambda key: '["threads"]',
    "no way": lambda key: json.dumps({key: None}),
    "a list": lambda key: json.dumps({key: [1, "float32", "onednn"]}),
    "too little": lambda key: json.dumps({key: {"threads": 1}}),
    "too much": lambda key: json.dumps({key: {**WAY, "wings": 2}}),
    "of a machine with more cores": lambda key: json.dumps({key: {**WAY, "threads": 7777}}),
    "of no precision": lambda key: json.dumps({key: {**WAY, "precision": "float8"}}),
    "of no convolutions": lambda key: json.dumps({key: {**WAY, "convolutions": "auto"}}),
    "of no load": lambda key: json.dumps({key: {**WAY, "threads": 7777, "load": None}}),
    "of half threads": lambda key: json.dumps({key: {**WAY, "threads": 0.5}}),
    "of threads that are no whole number": lambda key: json.dumps({key: {**WAY, "threads": 1.0}}),
    "of threads that are a list": lambda key: json.dumps({key: {**WAY, "threads": [1]}}),
}
WAY = {"threads": 1, "precision": "float32", "convolutions": "onednn"}


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_to_what_was_found_does_no_harm(colours: Dataset, remembered: Path, name: str) -> None:
    resolve(NARROW, colours)
    (key,) = json.loads(remembered.read_text())
    remembered.write_bytes(DAMAGE[name](key).encode(errors="surrogateescape"))
    resolved = resolve(NARROW, colours)
    assert_valid(resolved, NARROW)
    assert type(resolved.threads) is int
    found = json.loads(remembered.read_text())
    assert {name: found[key][name] for name in WAY} == {name: getattr(resolved, name) for name in WAY}  # whole again


def test_what_was_found_for_others_is_kept(colours: Dataset, remembered: Path) -> None:
    remembered.write_text(json.dumps({"another machine": WAY}))
    resolve(NARROW, colours)
    assert json.loads(remembered.read_text())["another machine"] == WAY
    assert [path.name for path in remembered.parent.glob("*quickest.json*")] == [remembered.name]


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_does_no_harm(
    colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "data", tmp_path / "nowhere"):
        monkeypatch.setenv("LOUPE_DATA", str(folder))
        assert_valid(resolve(NARROW, colours), NARROW)
        assert not folder.exists()


def test_a_folder_in_its_place_does_no_harm(colours: Dataset, remembered: Path) -> None:
    remembered.mkdir()
    assert_valid(resolve(NARROW, colours), NARROW)
    assert [path.name for path in remembered.parent.glob("[!.]*")] == ["prepared", "quickest.json"]
    assert list(remembered.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize(("threads", "asked"), [(1, OPEN), (3, NARROW)], ids=["open", "narrow"])
def test_trying_leaves_the_process_as_it_was(colours: Dataset, threads: int, asked: Recipe, onednn: bool) -> None:
    def as_set() -> tuple[int, bool]:
        return torch.get_num_threads(), torch.backends.mkldnn.enabled

    torch.set_num_threads(threads)
    torch.backends.mkldnn.set_flags(onednn)
    resolve(asked, colours)
    assert as_set() == (threads, onednn)
    with pytest.raises(LoupeError, match="lenet5 needs images of at least 28 x 28 pixels"):
        resolve(change(asked, {"model": "lenet5"}), colours)
    assert as_set() == (threads, onednn)


def test_use_sets_this_process_up() -> None:
    for threads, convolutions in ((2, "native"), (1, "onednn")):
        apply_settings(change(OPEN, {"threads": threads, "convolutions": convolutions}))
        assert torch.get_num_threads() == threads
        assert torch.backends.mkldnn.enabled == (convolutions == "onednn")


@pytest.mark.slow
def test_trying_changes_nothing_of_the_training_that_follows(colours: Dataset) -> None:
    def trained(chosen: Recipe) -> dict[str, torch.Tensor]:
        training = Training(chosen, colours, torch.device("cpu"))
        for _ in fit(training, colours):
            pass
        return training.model.state_dict()

    chosen = change(
        OPEN, {"model": "convnet", "augment": "shift=1", "threads": 1, "precision": "float32", "convolutions": "onednn"}
    )
    expected = trained(chosen)
    resolve(OPEN, colours)
    for name, value in trained(chosen).items():
        assert torch.equal(value, expected[name]), name


def test_rows_of_a_table_are_tried_too(remembered: Path) -> None:
    fetch("blobs")
    asked = change(find_recipe("blobs-mlp"), {"device": "cpu", "threads": 1})
    assert_valid(resolve(asked, open_dataset("blobs")), asked)
    assert len(json.loads(remembered.read_text())) == 1


def test_more_threads_than_cores_are_not_taken(colours: Dataset) -> None:
    asked = change(OPEN, {"threads": 1024, "precision": "float32", "convolutions": "onednn"})
    assert resolve(asked, colours) == change(asked, {"threads": cores()})


def test_the_device_is_chosen_and_leaves_the_rest() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device(Recipe(learning_rate=0.5)) == Recipe(learning_rate=0.5, device=device)


def test_a_device_that_was_chosen_is_kept() -> None:
    chosen = Recipe(name="mine", epochs=7, device="cpu", threads=3, precision="bfloat16")
    assert choose_device(chosen) == chosen
    assert choose_device(replace(chosen, precision="float32")).precision == "float32"


def test_a_device_that_was_found_stays() -> None:
    chosen = choose_device(Recipe())
    assert choose_device(chosen) == chosen


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(LoupeError, match="device is 'cuda', but no GPU"):
        choose_device(Recipe(device="cuda"))


def test_of_two_trainings_that_measure_at_once_both_take_what_is_kept_first(colours: Dataset, remembered: Path) -> None:
    one, other = tuning._Remembered(NARROW, colours), tuning._Remembered(NARROW, colours)
    first, second = (tuning._Settings(1, "float32", convolutions) for convolutions in ("native", "onednn"))
    assert (one.keep(first), other.keep(second)) == (first, first)
    assert resolve(NARROW, colours).convolutions == "native"
