"""Training that starts from weights: what is frozen stays, what is cached is right, and what goes wrong is told."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import files_limited_to
from photographs import photographs, save_photographs
from processes import LaunchedProcess, ending_its_runs, folders, wait_until, watching_launches
from safetensors.torch import load_file
from small_networks import after_some_images
from torch import Tensor, nn
from torchvision.models import get_model

from benchmarks.kill_resume import differences
from engine.base.errors import LoupeError
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.evaluation.predictions import load_predictions
from engine.inference.classifier import find_split, load_classifier
from engine.networks import features
from engine.networks.inference import as_tensor
from engine.networks.models import build_model, head_path
from engine.recipes.recipe import Recipe, change
from engine.runs import run as runs
from engine.runs.log import Log
from engine.runs.records import Cancelled, Epoch, Evaluated, Extracting, Failed, Record, Step, from_line
from engine.runs.run import Run, create_run, delete_run
from engine.training.loop import Training, fit
from engine.training.pretrained import load_pretrained
from engine.training.worker import execute

CPU = torch.device("cpu")
CLASSES = ("red", "green", "blue")
MEAN, DEVIATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OF_THE_MACHINE = ("train_seconds", "images_per_second", "memory_mb")
AS_MACHINES_DIFFER = {"device": "cpu", "precision": "float32", "convolutions": "onednn", "threads": 1}


def recipe(**settings) -> Recipe:
    return Recipe(**{"dataset": "photographs", "log_every": 1} | AS_MACHINES_DIFFER | settings)


@pytest.fixture
def dataset() -> Dataset:
    """Sixty photographs to train on and 24 to test on, of 24 x 24 pixels in three classes."""
    return save_photographs()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of weights by network: random ones, made for seven classes."""
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for name in ("resnet18", "mobilenet_v3_small"):
        torch.manual_seed(1)
        files[name] = str(folder / f"{name}.pth")
        torch.save(after_some_images(get_model(name, num_classes=7), 32).state_dict(), files[name])
    for number in (1, 2):
        torch.manual_seed(number)
        files[f"convnet-{number}"] = str(folder / f"convnet-{number}.pth")
        torch.save(after_some_images(build_model("convnet", (24, 24, 3), 7)).state_dict(), files[f"convnet-{number}"])
    files["convnet"] = files["convnet-1"]
    return files


def begun(chosen: Recipe, dataset: Dataset) -> Training:
    training = Training(chosen, dataset, CPU)
    load_pretrained(training.model, chosen)
    return training


def copy_of(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in tensors.items()}


def split_at_head(model: nn.Module, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Part the tensors of a network in those of its backbone and those of its head."""
    start = f"{head_path(model)}."
    backbone = {name: value for name, value in tensors.items() if not name.startswith(start)}
    return backbone, {name: value for name, value in tensors.items() if name.startswith(start)}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Name the tensors that differ in any bit."""
    assert before.keys() <= after.keys()
    return [name for name, value in before.items() if not torch.equal(value, after[name])]


def executed(chosen: Recipe) -> Run:
    run = create_run(chosen)
    execute(run)
    return run


def records_of(run: Run) -> list:
    return [from_line(line) for line in run.log.read_bytes().splitlines()]


def extracted(run: Run) -> int:
    """Count the images whose features a run has computed."""
    return sum(record.total for record in records_of(run) if isinstance(record, Extracting) and is_last(record))


def is_last(record: Extracting) -> bool:
    return record.done == record.total


def computed(training: Training, dataset: Dataset) -> int:
    """Train to the end; returns how many features were computed."""
    return sum(record.total for record in fit(training, dataset) if isinstance(record, Extracting) and is_last(record))


# A frozen backbone

together = pytest.mark.xdist_group("frozen")  # its runs are made once
FROZEN = {
    "cached": {},
    "a new view each epoch": {"augment": "flip shift=2 rotate=10", "views": 0},
    "two views": {"augment": "flip shift=2 rotate=10", "views": 2},
}


@pytest.fixture(scope="module")
def frozen_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frozen-data")


@pytest.fixture(scope="module")
def frozen(frozen_data: Path, weights: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs of a frozen ResNet-18 that have finished, by how they see their images."""
    place = tmp_path_factory.mktemp("frozen-runs")
    shared = recipe(
        model="resnet18",
        weights=weights["resnet18"],
        freeze="backbone",
        head="hidden",
        epochs=3,
        batch_size=16,
        optimizer="adamw",
        weight_decay=0.1,
        validation_share=0.2,
        keep="best",
        evaluate_every=2,
    )
    with folders(frozen_data, place):
        save_photographs()
        return {name: executed(change(shared, settings)) for name, settings in FROZEN.items()}


@pytest.mark.slow
@together
@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_backbone_is_the_same_at_the_end_of_a_run_bit_by_bit(
    frozen: dict[str, Run], weights: dict[str, str], name: str
) -> None:
    run = frozen[name]
    assert run.status() == "finished"
    before = torch.load(weights["resnet18"], weights_only=True)
    backbone = {key: value for key, value in before.items() if not key.startswith("fc.")}
    assert sum("running" in key or "num_batches" in key for key in backbone) == 60
    assert changed(backbone, load_file(run.weights)) == []
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    assert changed(backbone, checkpoint["model"]) == []
    assert len(checkpoint["optimizer"]["state"]) == 4  # of the head's weights alone


@pytest.mark.slow
@together
@pytest.mark.parametrize("name", FROZEN)
def test_the_head_of_a_frozen_backbone_learns(frozen: dict[str, Run], name: str) -> None:
    first, *_, last = frozen[name].history().epochs
    assert last.train_loss < first.train_loss
    assert frozen[name].history().ended.test_accuracy > 0.5


@pytest.mark.slow
@together
def test_runs_compute_each_feature_once_between_them(frozen: dict[str, Run]) -> None:
    # Of 48 images to train on the features as they are and in two views; 12 to validate on and 24 to test on.
    assert {name: extracted(run) for name, run in frozen.items()} == {
        "cached": 48 + 12 + 24,
        "a new view each epoch": 0,
        "two views": 2 * 48,
    }


@pytest.mark.slow
@together
@pytest.mark.parametrize("name", FROZEN)
def test_predictions_by_features_are_those_of_the_whole_network(
    frozen: dict[str, Run], frozen_data: Path, name: str
) -> None:
    run = frozen[name]
    with folders(frozen_data, run.path.parent):
        dataset = open_dataset("photographs")
    for split in ("val", "test"):
        stored, indices = find_split(dataset, run.read_recipe(), split)
        answers = np.concatenate(list(load_classifier(run).probabilities(dataset.splits[stored].images, indices)))
        predictions = load_predictions(run.predictions(split))
        np.testing.assert_array_equal(predictions.indices, indices)
        np.testing.assert_allclose(predictions.probabilities, answers, atol=1e-5)


# Features in place of images


def plain_model(name: str, state: dict[str, Tensor], head: str) -> nn.Module:
    model = get_model(name, num_classes=3)
    if head == "hidden":
        model.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 3))
    model.load_state_dict(state)
    return model.to(memory_format=torch.channels_last)


def as_seen(images: Tensor) -> Tensor:
    """Pixels as torchvision's weights for ImageNet expect them."""
    pixels = images.permute(0, 3, 1, 2) / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)


def order_of_epoch(seed: int, epoch: int, indices: Tensor) -> Tensor:
    digest = hashlib.sha256(f"{seed} order {epoch}".encode()).digest()
    return indices[torch.randperm(len(indices), generator=seeded(int.from_bytes(digest[:7], "big")))]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01, "learning_rate": 0.05, "shuffle": False},
        {"optimizer": "adam", "learning_rate": 0.01, "shuffle": True},
        {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.05, "head": "hidden", "shuffle": True},
    ],
    ids=["sgd", "adam", "hidden"],
)
def test_training_on_features_equals_a_plain_loop_over_the_whole_network(
    dataset: Dataset, weights: dict[str, str], settings: dict
) -> None:
    chosen = recipe(
        model="resnet18",
        weights=weights["resnet18"],
        freeze="backbone",
        epochs=2,
        batch_size=16,
        validation_share=0.2,
        **settings,
    )
    training = begun(chosen, dataset)
    model = plain_model("resnet18", copy_of(training.model.state_dict()), chosen.head)
    random_state = torch.get_rng_state()
    epochs = [record for record in fit(training, dataset) if isinstance(record, Epoch)]
    assert training.trains_on_features is False  # there is no epoch to come
    assert training.was_frozen

    torch.set_rng_state(random_state)  # the dropout of the head
    model.requires_grad_(False).eval()
    model.fc.requires_grad_(True).train()
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    more = {"momentum": 0.9} if chosen.optimizer == "sgd" else {}
    optimizer = kinds[chosen.optimizer](
        model.fc.parameters(), lr=chosen.learning_rate, weight_decay=chosen.weight_decay, **more
    )
    images, labels = as_tensor(dataset.splits["train"].images), torch.from_numpy(dataset.splits["train"].labels)
    for number, epoch in enumerate(epochs):
        order = training.train_indices
        if chosen.shuffle:
            order = order_of_epoch(chosen.seed, number, order)
        losses, correct = 0.0, 0
        for batch in order.split(16):
            logits = model(as_seen(images[batch]))
            loss = nn.functional.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += loss.item() * len(batch)
            correct += int((logits.argmax(1) == labels[batch]).sum())
        assert epoch.train_loss == pytest.approx(losses / 48, abs=1e-5)
        assert epoch.train_accuracy == correct / 48
        with torch.no_grad():
            logits = model.eval()(as_seen(images[training.val_indices]))
        model.fc.train()
        truth = labels[training.val_indices]
        assert epoch.val_loss == pytest.approx(nn.functional.cross_entropy(logits, truth).item(), abs=1e-5)
        assert epoch.val_accuracy == int((logits.argmax(1) == truth).sum()) / 12
    assert epochs[-1].train_loss < epochs[0].train_loss
    for name, value in model.state_dict().items():
        torch.testing.assert_close(training.model.state_dict()[name], value, rtol=0, atol=1e-5)


def losses_while_nothing_is_learned(dataset: Dataset, **settings) -> tuple[list[float], int]:
    """Train at next to no rate, in one step an epoch; returns the losses, and how many features were computed."""
    chosen = recipe(model="convnet", epochs=4, batch_size=60, optimizer="sgd", learning_rate=1e-8, **settings)
    records = list(fit(begun(chosen, dataset), dataset))
    extracting = [record.total for record in records if isinstance(record, Extracting) and is_last(record)]
    return [record.train_loss for record in records if isinstance(record, Epoch)], sum(extracting)


@pytest.mark.slow
def test_with_views_their_features_are_taken_in_turn(dataset: Dataset, weights: dict[str, str]) -> None:
    settings = {"weights": weights["convnet"], "freeze": "backbone", "augment": "flip shift=3"}
    losses, count = losses_while_nothing_is_learned(dataset, views=2, **settings)
    assert losses[2:] == pytest.approx(losses[:2], abs=1e-6)
    assert abs(losses[0] - losses[1]) > 1e-5
    assert count == 120


def test_without_views_a_frozen_backbone_sees_new_images_each_epoch(dataset: Dataset, weights: dict[str, str]) -> None:
    settings = {"weights": weights["convnet"], "freeze": "backbone"}
    losses, count = losses_while_nothing_is_learned(
        dataset, augment="flip shift=9 crop=0.5 rotate=90", views=0, **settings
    )
    assert min(abs(a - b) for a, b in combinations(losses, 2)) > 1e-5
    assert count == 0
    as_they_are, count = losses_while_nothing_is_learned(dataset, **settings)
    assert as_they_are == pytest.approx([as_they_are[0]] * 4, abs=1e-6)
    assert count == 60


# Computed once

AGAIN = {
    "another learning rate": {"learning_rate": 0.01},
    "another head": {"head": "hidden"},
    "another optimizer": {"optimizer": "sgd", "batch_size": 7, "schedule": "cosine"},
    "another seed": {"seed": 5},
    "frozen for one epoch only": {"freeze": "1"},
}


@pytest.fixture
def base(dataset: Dataset, weights: dict[str, str]) -> Recipe:
    return recipe(
        model="convnet", weights=weights["convnet"], freeze="backbone", epochs=1, batch_size=16, validation_share=0.2
    )


def feature_files(dataset: Dataset) -> dict[str, tuple]:
    files = sorted(path for path in dataset.folder.glob("features-*") if path.suffix in (".f32", ".there"))
    # A file of values is touched by who uses it: the last used stays longest.
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns if path.suffix == ".there" else 0) for path in files}


@pytest.mark.parametrize("what", AGAIN)
def test_a_second_run_computes_no_features(base: Recipe, dataset: Dataset, what: str) -> None:
    first = executed(base)
    assert (first.status(), extracted(first)) == ("finished", 84)
    before = feature_files(dataset)
    assert len(before) == 4
    second = executed(change(base, AGAIN[what]))
    assert second.status() == "finished"
    assert not [record for record in records_of(second) if isinstance(record, Extracting)]
    assert feature_files(dataset) == before


def test_another_split_seed_computes_nothing_more_where_both_parts_were_needed_before(
    base: Recipe, dataset: Dataset
) -> None:
    assert computed(begun(base, dataset), dataset) == 60
    assert computed(begun(change(base, {"split_seed": 7}), dataset), dataset) == 0


def test_another_split_seed_computes_only_the_views_of_images_that_were_held_back(
    base: Recipe, dataset: Dataset
) -> None:
    viewed = change(base, {"augment": "flip", "views": 1})
    first = begun(viewed, dataset)
    assert computed(first, dataset) == 48 + 12
    other = begun(change(viewed, {"split_seed": 7}), dataset)
    new = set(other.train_indices.tolist()) - set(first.train_indices.tolist())
    newly_held_back = set(other.val_indices.tolist()) - set(first.val_indices.tolist())
    assert 0 < len(new) < 12
    assert computed(other, dataset) == len(new) + len(newly_held_back)


VIEWED = {"augment": "flip shift=1", "views": 1}
ANEW: dict[str, tuple[dict, dict, int]] = {
    "size": ({}, {"size": 30}, 60),
    "scaling": ({}, {"scaling": "half"}, 60),
    "precision": ({}, {"precision": "bfloat16"}, 48),  # validation is in float32 and was there
    "a view more": (VIEWED, VIEWED | {"views": 2, "epochs": 2}, 48),
    "seed of the views": (VIEWED, VIEWED | {"seed": 1}, 48),
    "augmentation": (VIEWED, VIEWED | {"augment": "flip shift=2"}, 48),
}


@pytest.mark.parametrize("what", ANEW)
def test_what_features_depend_on_has_them_computed_anew(base: Recipe, dataset: Dataset, what: str) -> None:
    before, after, count = ANEW[what]
    assert computed(begun(change(base, before), dataset), dataset) == 60
    assert computed(begun(change(base, after), dataset), dataset) == count
    assert computed(begun(change(base, before), dataset), dataset) == 0  # the others are still there


def test_other_weights_have_features_of_their_own(base: Recipe, dataset: Dataset, weights: dict[str, str]) -> None:
    assert computed(begun(base, dataset), dataset) == 60
    assert computed(begun(change(base, {"weights": weights["convnet-2"]}), dataset), dataset) == 60


def test_a_dataset_that_is_made_again_with_other_images_has_its_features_computed_anew(
    base: Recipe, dataset: Dataset
) -> None:
    assert computed(begun(base, dataset), dataset) == 60
    again = save_photographs(train=50, test=10)
    assert feature_files(again) == {}
    assert computed(begun(base, again), again) == 50


# Killed or stopped while features are computed


@pytest.fixture(scope="module")
def slow(weights: dict[str, str]) -> Recipe:
    """Features of 300 images are computed 32 at a time, for seconds."""
    return recipe(
        model="mobilenet_v3_small",
        weights=weights["mobilenet_v3_small"],
        freeze="backbone",
        head="hidden",
        size=224,
        epochs=2,
        batch_size=32,
        validation_share=0.1,
    )


def kill_within_the_extraction(chosen: Recipe) -> Run:
    with watching_launches():
        run = runs.start(chosen)
        process = LaunchedProcess.latest
    wait_until(lambda: isinstance(run.history().last, Extracting))
    process.kill()
    process.wait()
    return run


def stop_within_the_extraction(chosen: Recipe) -> Run:
    """Execute a run that is asked to stop when it has logged its first features."""
    run = create_run(chosen)
    append = Log.append

    def append_and_stop(log: Log, record: Record) -> None:
        append(log, record)
        if isinstance(record, Extracting):
            run.request_stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Log, "append", append_and_stop)
        execute(run)
    run.stop_file.unlink()
    return run


def assert_it_goes_on_with_what_is_there(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    assert not run.weights.exists()
    assert not run.checkpoint.exists()
    assert run.explain(run.history()).endswith("Resume it, and it starts from the beginning.")
    (there,) = dataset.folder.glob("features-train-*.there")
    kept = sum(there.read_bytes())
    assert 0 < kept < 270
    assert kept % 32 == 0
    lines = len(records_of(run))
    execute(run)
    assert run.status() == "finished"
    since = [record for record in records_of(run)[lines:] if isinstance(record, Extracting) and is_last(record)]
    assert [record.total for record in since] == [270 - kept, 30, 40]
    with folders(tmp_path / "other data", tmp_path / "other runs"):
        save_photographs(train=300, test=40)
        in_one_go = executed(run.read_recipe())
        assert extracted(in_one_go) == 270 + 30 + 40
    assert differences(run, in_one_go) == []


@pytest.mark.slow
def test_a_run_that_is_stopped_within_the_extraction_goes_on_with_what_is_there(
    base: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "batch_size_for", lambda preprocess: 32)
    dataset = save_photographs(train=300, test=40)
    run = stop_within_the_extraction(change(base, {"batch_size": 32, "validation_share": 0.1}))
    assert run.status() == "stopped"
    assert isinstance(run.history().last, Cancelled)
    assert_it_goes_on_with_what_is_there(run, dataset, tmp_path)


@pytest.mark.processes
@pytest.mark.sweep
def test_a_run_that_is_killed_within_the_extraction_goes_on_with_what_is_there(slow: Recipe, tmp_path: Path) -> None:
    with ending_its_runs(tmp_path / "data", tmp_path / "runs"):
        dataset = save_photographs(train=300, test=40)
        run = kill_within_the_extraction(slow)
        assert run.status() == "died"
        assert isinstance(run.history().last, Extracting)
        assert_it_goes_on_with_what_is_there(run, dataset, tmp_path)


# Frozen for some epochs


@pytest.mark.parametrize("augment", ["", "flip"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("backbone_rate", [1.0, 0.1])
def test_a_backbone_that_is_frozen_for_two_epochs_changes_in_the_third(
    dataset: Dataset, weights: dict[str, str], augment: str, optimizer: str, backbone_rate: float
) -> None:
    chosen = recipe(
        model="convnet",
        weights=weights["convnet"],
        freeze="2",
        epochs=3,
        batch_size=16,
        augment=augment,
        optimizer=optimizer,
        weight_decay=0.01,
        backbone_rate=backbone_rate,
        validation_share=0.2,
    )
    training = begun(chosen, dataset)
    before, head = split_at_head(training.model, copy_of(training.model.state_dict()))
    for record in fit(training, dataset):
        now = training.model.state_dict()
        if isinstance(record, Epoch) and record.epoch < 3:
            assert changed(before, now) == []
            assert changed(head, now) == list(head)
        elif isinstance(record, Epoch):
            assert changed(before, now) == list(before)
    assert training.epoch == 3


def one_step(dataset: Dataset, weights: str, backbone_rate: float) -> tuple[Training, dict[str, Tensor]]:
    """Make one step of SGD without momentum; returns by how much it has moved each tensor."""
    chosen = recipe(
        model="convnet",
        weights=weights,
        epochs=1,
        batch_size=60,
        optimizer="sgd",
        momentum=0.0,
        learning_rate=0.5,
        backbone_rate=backbone_rate,
    )
    training = begun(chosen, dataset)
    before = copy_of(training.model.state_dict())
    for _ in fit(training, dataset):
        pass
    assert training.step == 1
    return training, {name: value - before[name] for name, value in training.model.state_dict().items()}


@pytest.mark.slow
def test_the_rate_of_a_backbone_is_in_parts_of_the_heads(dataset: Dataset, weights: dict[str, str]) -> None:
    training, whole = one_step(dataset, weights["convnet"], 1.0)
    _, tenth = one_step(dataset, weights["convnet"], 0.1)
    _, none = one_step(dataset, weights["convnet"], 0.0)
    learned = {name for name, _ in training.model.named_parameters()}
    backbone, head = split_at_head(training.model, whole)
    for name in learned & backbone.keys():
        assert whole[name].abs().max() > 1e-5, name
        torch.testing.assert_close(tenth[name], whole[name] / 10, rtol=1e-2, atol=2e-7)
        assert not none[name].any()
    for name in head:
        assert torch.equal(tenth[name], whole[name])
        assert torch.equal(none[name], whole[name])
    statistics = backbone.keys() - learned
    assert len(statistics) == 9
    for name in statistics:  # it is trained on these images, if at no rate
        assert none[name].any(), name
        assert torch.equal(none[name], whole[name])


THAWED = {
    "one rate": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "schedule": "one-cycle", "keep": "best"},
    "two rates": {"optimizer": "adamw", "backbone_rate": 0.1, "schedule": "cosine", "clip_norm": 0.5},
    "two views": {"optimizer": "adam", "augment": "flip shift=2", "views": 2, "evaluate_every": 2},
    "new views": {"optimizer": "sgd", "backbone_rate": 0.5, "augment": "flip shift=2"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", THAWED)
def test_wherever_a_training_is_cut_it_thaws_as_if_it_had_not_been(
    dataset: Dataset, weights: dict[str, str], name: str
) -> None:
    chosen = recipe(
        **{"model": "convnet", "weights": weights["convnet"], "freeze": "1", "head": "hidden", "epochs": 2},
        **{"batch_size": 20, "validation_share": 0.25, "learning_rate": 0.01, "log_every": 2},
        **THAWED[name],
    )
    whole = begun(chosen, dataset)
    expected = figures(fit(whole, dataset))
    saved = begun(chosen, dataset)
    yielded, states = [], []
    for record in fit(saved, dataset):
        yielded.append(record)
        file = io.BytesIO()
        torch.save(saved.state_dict(), file)
        states.append(file.getvalue())
        assert not saved.step or saved.kept_figures()["kept"]  # it may be stopped at any of them
    assert figures(yielded) == expected
    for cut, state in enumerate(states, start=1):
        torch.rand(3)
        going_on = Training(chosen, dataset, CPU)  # the weights that it has started from are not looked at
        going_on.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
        assert figures(yielded[:cut] + list(fit(going_on, dataset))) == expected, cut
        assert changed(whole.model.state_dict(), going_on.model.state_dict()) == [], cut
        assert changed(whole.kept_weights(), going_on.kept_weights()) == [], cut


def figures(yielded) -> list[dict]:
    """What was yielded, but for what is the machine's, and for features, which are computed once."""
    return [
        {name: value for name, value in asdict(record).items() if name not in OF_THE_MACHINE}
        for record in yielded
        if isinstance(record, Step | Epoch | Evaluated)
    ]


@pytest.mark.slow
def test_a_frozen_backbone_is_in_evaluation_mode_while_its_head_is_trained(
    dataset: Dataset, weights: dict[str, str]
) -> None:
    chosen = recipe(
        model="mobilenet_v3_small",
        weights=weights["mobilenet_v3_small"],
        freeze="1",
        head="hidden",
        augment="flip",
        epochs=2,
        batch_size=30,
        evaluate_every=1,
        validation_share=0.2,
    )
    training = begun(chosen, dataset)
    modes: set[tuple[str, str, bool, bool]] = set()  # part, kind, whether in evaluation, its mode

    def note(part: str) -> Callable:
        def note(module: nn.Module, inputs: object, output: object) -> None:
            modes.add((part, type(module).__name__, torch.is_inference_mode_enabled(), module.training))

        return note

    for path, module in training.model.named_modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout):
            part = "head" if path.startswith(f"{head_path(training.model)}.") else "backbone"
            module.register_forward_hook(note(part))
    backbone = {("backbone", "BatchNorm2d"), ("backbone", "Dropout")}
    by_epoch = []
    for record in fit(training, dataset):
        if isinstance(record, Epoch):
            by_epoch.append(set(modes))
            modes.clear()
    frozen, thawed = by_epoch
    in_training = {mode for mode in frozen if not mode[2]}
    assert in_training == {(*kind, False, False) for kind in backbone} | {("head", "Dropout", False, True)}
    assert {mode for mode in frozen if mode[2]} == {(*kind, True, False) for kind in (*backbone, ("head", "Dropout"))}
    assert {mode for mode in thawed if not mode[2]} == {
        (*kind, False, True) for kind in (*backbone, ("head", "Dropout"))
    }
    assert all(not mode for *_, evaluating, mode in thawed if evaluating)


# From one run to another


def parts_of_digits(digits: Dataset, few: int = 60) -> None:
    """Make two datasets: digits up to four, and of those from five on a few to train on."""
    train, test = digits.splits["train"], digits.splits["test"]
    for name, chosen, count in (("low", range(5), None), ("high", range(5, 10), few)):
        splits = {}
        for split_name, split, limit in (("train", train, count), ("test", test, None)):
            indices = np.flatnonzero(np.isin(split.labels, chosen))[:limit]
            splits[split_name] = Split(split.images[indices], split.labels[indices] - chosen[0])
        save_dataset(name, tuple(map(str, chosen)), splits, "digits")


def on_digits(dataset: str, **settings) -> Recipe:
    shared = {"model": "convnet", "optimizer": "adamw", "learning_rate": 0.005, "batch_size": 10, "scaling": "unit"}
    return recipe(**shared | {"dataset": dataset, "log_every": 100} | settings)


@pytest.mark.slow
def test_a_run_on_some_digits_gives_a_better_start_with_the_others(digits: Dataset) -> None:
    parts_of_digits(digits)
    earlier = executed(on_digits("low", model="resnet-fast", epochs=5, batch_size=32, seed=1))
    assert earlier.history().ended.test_accuracy > 0.95

    def accuracy(**settings) -> float:
        chosen = on_digits("high", model="resnet-fast", head="hidden", epochs=4, learning_rate=0.002, seed=1)
        return executed(change(chosen, settings)).history().ended.test_accuracy

    scratch = accuracy()
    # Measured: gains of 0.38 and 0.63; with seeds of 0 and 2, of 0.13 and 0.16, and of 0.39 and 0.53.
    assert accuracy(weights=earlier.id, freeze="backbone") - scratch > 0.1
    assert accuracy(weights=earlier.id) - scratch > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("freeze", ["none", "1", "backbone"])
def test_a_run_does_not_need_the_one_that_it_started_from_any_more(digits: Dataset, freeze: str) -> None:
    parts_of_digits(digits)
    earlier = executed(on_digits("low", epochs=1, batch_size=32, scaling="dataset"))
    chosen = on_digits("high", weights=earlier.id, freeze=freeze, scaling="auto", epochs=3)
    in_one_go = executed(chosen)
    run = executed(change(chosen, {"epochs": 2}))
    delete_run(earlier)
    run.write_recipe(change(run.read_recipe(), {"epochs": 3}))
    execute(run)
    assert run.status() == "finished"
    assert differences(run, in_one_go) == []
    high = open_dataset("high")
    predictions = load_predictions(run.predictions("test"))
    answers = np.concatenate(list(load_classifier(run).probabilities(high.splits["test"].images)))
    np.testing.assert_allclose(answers, predictions.probabilities, atol=1e-5)
    probabilities, _ = load_classifier(run).classify(high.splits["test"].images[0])
    np.testing.assert_allclose(probabilities, answers[0], atol=1e-5)


@pytest.mark.slow
def test_a_run_sees_what_the_one_that_it_starts_from_saw(digits: Dataset) -> None:
    parts_of_digits(digits)
    earlier = executed(on_digits("low", epochs=1, batch_size=32, scaling="dataset", size=12))
    training = begun(on_digits("high", weights=earlier.id, scaling="auto"), open_dataset("high"))
    before = load_classifier(earlier).preprocessing
    assert training.preprocessing.shape == before.shape == (12, 12, 1)
    assert (training.preprocessing.mean, training.preprocessing.std) == (before.mean, before.std)
    assert training.preprocessing.classes == ("5", "6", "7", "8", "9")


@pytest.mark.slow
def test_a_run_that_has_lost_its_start_before_its_first_checkpoint_says_so(digits: Dataset) -> None:
    parts_of_digits(digits)
    earlier = executed(on_digits("low", epochs=1, batch_size=32))
    run = create_run(on_digits("high", weights=earlier.id))
    delete_run(earlier)
    execute(run)
    assert run.status() == "failed"
    assert run.history().last.error.startswith(f"weights is {earlier.id!r}, but must be none, imagenet, the name of")


# Images and classes of all kinds


@pytest.mark.slow
def test_grey_images_go_through_a_backbone_for_colours(weights: dict[str, str]) -> None:
    grey = save_photographs("grey", channels=1)
    run = executed(
        recipe(dataset="grey", model="resnet18", weights=weights["resnet18"], freeze="backbone", epochs=8, batch_size=8)
    )
    assert run.status() == "finished"
    pixels = as_seen(as_tensor(grey.splits["test"].images).expand(-1, -1, -1, 3))
    model = get_model("resnet18", num_classes=3).eval()
    model.load_state_dict(load_file(run.weights))
    with torch.no_grad():
        expected = model(pixels).softmax(1).numpy()
    np.testing.assert_allclose(load_predictions(run.predictions("test")).probabilities, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 1000])
def test_a_head_has_as_many_classes_as_the_dataset(weights: dict[str, str], num_classes: int) -> None:
    many = save_photographs("many", train=2 * num_classes + 8, test=num_classes, side=8, num_classes=num_classes)
    run = executed(
        recipe(dataset="many", model="convnet", weights=weights["convnet"], freeze="backbone", epochs=1, batch_size=64)
    )
    assert run.status() == "finished"
    predictions = load_predictions(run.predictions("test"))
    assert predictions.probabilities.shape == (num_classes, num_classes)
    answers = np.concatenate(list(load_classifier(run).probabilities(many.splits["test"].images)))
    np.testing.assert_allclose(predictions.probabilities, answers, atol=1e-5)


def with_one_image_of_a_class(held_back: bool) -> Recipe:
    """Save a dataset with a single image of its last class, which is the held-back one or is not."""
    count, share = 41, 0.25
    order = torch.randperm(count, generator=seeded(42))
    place = int(order[-1] if held_back else order[0])
    some = photographs(count, 0, num_classes=2)
    labels = some.labels.copy()
    labels[place] = 2
    save_dataset("one", CLASSES, {"train": Split(some.images, labels)}, "generated by the tests")
    return recipe(dataset="one", model="convnet", epochs=1, validation_share=share)


def test_a_class_may_have_one_image(weights: dict[str, str]) -> None:
    chosen = with_one_image_of_a_class(held_back=False)
    run = executed(change(chosen, {"weights": weights["convnet"], "freeze": "backbone", "class_weights": "balanced"}))
    assert run.status() == "finished"
    assert load_predictions(run.predictions("val")).probabilities.shape == (10, 3)


def test_a_class_whose_only_image_is_held_back_is_told_in_a_sentence(weights: dict[str, str]) -> None:
    chosen = with_one_image_of_a_class(held_back=True)
    run = executed(change(chosen, {"weights": weights["convnet"], "freeze": "backbone"}))
    assert run.status() == "failed"
    assert run.history().last.error == (
        "The class 'blue' has 1 validation image but none to train on, so it cannot be learned. All its images were "
        "held back: lower validation_share, or set another split_seed."
    )


@pytest.mark.slow
def test_images_that_are_too_small_for_a_backbone_are_enlarged() -> None:
    small = save_photographs("small", train=20, test=5, side=10)
    run = executed(recipe(dataset="small", model="squeezenet1_1", epochs=1))
    assert run.status() == "finished"
    assert load_classifier(run).preprocessing.shape == (17, 17, 3)
    answers = np.concatenate(list(load_classifier(run).probabilities(small.splits["test"].images)))
    np.testing.assert_allclose(load_predictions(run.predictions("test")).probabilities, answers, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"model": "squeezenet1_1", "size": 16},
            "size is 16, but squeezenet1_1 needs images of at least 17 x 17 pixels.",
        ),
        ({"model": "alexnet", "size": 40}, "size is 40, but alexnet needs images of at least 63 x 63 pixels. Set size"),
        ({"model": "vit_b_32", "size": 64}, "size is 64, but vit_b_32 takes images of 224 x 224 pixels only. Set size"),
    ],
)
def test_a_size_that_a_backbone_does_not_take_is_told_in_a_sentence(
    dataset: Dataset, settings: dict, reason: str
) -> None:
    with pytest.raises(LoupeError) as refused:
        Training(recipe(**settings), dataset, CPU)
    assert str(refused.value).startswith(reason)


# Weights that cannot be used


def of_another_network(path: Path, trap: object) -> None:
    torch.save(get_model("shufflenet_v2_x0_5", num_classes=7).state_dict(), path)


def of_no_network(path: Path, trap: object) -> None:
    torch.save({"encoder.weight": torch.zeros(3, 4), "encoder.bias": torch.zeros(3)}, path)


def of_other_shapes(path: Path, trap: object) -> None:
    torch.save(build_model("convnet", (24, 24, 1), 7).state_dict(), path)


def cut_short(path: Path, trap: object) -> None:
    torch.save(build_model("convnet", (24, 24, 3), 7).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-50_000])


def with_code(path: Path, trap: object) -> None:
    torch.save(build_model("convnet", (24, 24, 3), 7).state_dict() | {"extra": trap}, path)


UNFIT: dict[str, tuple[Callable[[Path, object], None], str]] = {
    "another network": (
        of_another_network,
        "weights.pth does not fit convnet: ",
    ),
    "no network": (of_no_network, "weights.pth does not fit convnet: none of its 2 tensors has the name of one of "),
    "other shapes": (of_other_shapes, "weights.pth does not fit convnet: 0.weight is 32 x 1 x 3 x 3 in the file and "),
    "cut short": (cut_short, "weights.pth is damaged or cut short"),
    "code": (with_code, "weights.pth holds more than weights"),
}


@pytest.mark.slow
def test_weights_that_cannot_be_used_fail_a_run_in_a_sentence_and_do_not_run(
    dataset: Dataset, trap, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    for name, (write, reason) in UNFIT.items():
        path = tmp_path / name / "weights.pth"
        path.parent.mkdir()
        write(path, trap)
        run = executed(recipe(model="convnet", weights=str(path), freeze="backbone", epochs=1))
        last = run.history().last
        assert isinstance(last, Failed)
        assert reason in last.error
        assert "\n" not in last.error
        assert last.error.endswith(".")
        assert not run.weights.exists()
    assert capfd.readouterr() == ("", "")
    assert not trap.sprung
    torch.load(tmp_path / "code" / "weights.pth", weights_only=False)["extra"].close()
    assert trap.sprung, "the trap does not work"


# Disks


@pytest.mark.slow
def test_a_run_whose_features_find_no_room_fails_and_goes_on_once_there_is_some(
    weights: dict[str, str], tmp_path: Path
) -> None:
    save_photographs(train=400, test=24)
    chosen = recipe(model="convnet", weights=weights["convnet"], freeze="backbone", epochs=1, log_every=100)
    run = create_run(chosen)
    with files_limited_to(100_000):  # the features of 400 images are 204,800 bytes
        execute(run)
    folder = open_dataset("photographs").folder
    assert run.status() == "failed"
    assert run.history().last.error.startswith(f"{folder} cannot be written (File too large). ")
    assert not run.weights.exists()
    execute(run)
    assert run.status() == "finished"
    assert extracted(run) == 424
