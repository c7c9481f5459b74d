import copy
import io
import itertools
from dataclasses import asdict

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.data.download import fetch
from engine.data.splits import validation_split
from engine.networks.inference import as_tensor
from engine.networks.models import build_model
from engine.recipes.backbones import BACKBONES
from engine.recipes.recipe import FIELDS, TYPES, Recipe, change, find_recipe
from engine.runs.records import Epoch, Evaluated, Step
from engine.training import tuning
from engine.training.loop import GATHERED_AT_ONCE, PENDING_MOST, Training, fit

CPU = torch.device("cpu")
OF_THE_MACHINE = ("train_seconds", "images_per_second", "memory_mb")

Yielded = list[Step | Evaluated | Epoch | None]


def recipe(**settings) -> Recipe:
    as_machines_differ = {"device": "cpu", "precision": "float32", "convolutions": "onednn", "threads": 1}
    return Recipe(**{"model": "mlp"} | as_machines_differ | settings)


def train(chosen: Recipe, dataset: Dataset) -> tuple[Training, Yielded]:
    training = Training(chosen, dataset, CPU)
    return training, list(fit(training, dataset))


def epochs_of(yielded: Yielded) -> list[Epoch]:
    return [record for record in yielded if isinstance(record, Epoch)]


def evaluations_of(yielded: Yielded) -> list[Evaluated]:
    return [record for record in yielded if isinstance(record, Evaluated)]


def figures(yielded: Yielded) -> list[dict]:
    """What was yielded, but for what is the machine's."""
    return [
        {"record": type(record)} | {name: value for name, value in asdict(record).items() if name not in OF_THE_MACHINE}
        for record in yielded
        if record
    ]


@pytest.fixture
def blobs() -> Dataset:
    fetch("blobs")
    return open_dataset("blobs")


def assert_same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def pixels_of(dataset: Dataset, split: str, indices: Tensor | slice = slice(None)) -> Tensor:
    """Images as a tutorial would scale them: 0 to 1, channels first."""
    return as_tensor(dataset.splits[split].images)[indices].permute(0, 3, 1, 2) / 255


# What is yielded


def test_fit_yields_a_step_every_log_every_an_epoch_an_epoch_and_none_otherwise(digits: Dataset) -> None:
    # 1,293 images to train on are 13 steps; the 144 held back are one batch of validation.
    chosen = recipe(epochs=2, batch_size=100, log_every=5, validation_share=0.1)
    _, yielded = train(chosen, digits)
    of_an_epoch = [type(None)] * 4 + [Step] + [type(None)] * 4 + [Step] + [type(None)] * 2 + [type(None), Epoch]
    assert [type(record) for record in yielded] == of_an_epoch * 2
    assert [(record.step, record.epoch) for record in yielded if record] == [
        (5, 1),
        (10, 1),
        (13, 1),
        (18, 2),
        (23, 2),
        (26, 2),
    ]


def test_the_last_step_of_an_epoch_is_reported_when_it_is_its_turn(colours: Dataset) -> None:
    _, yielded = train(recipe(epochs=1, batch_size=30, log_every=3), colours)
    assert [type(record) for record in yielded] == [type(None), type(None), Step, Epoch]


def test_steps_are_means_since_the_last_report(colours: Dataset) -> None:
    chosen = {"epochs": 1, "batch_size": 10}
    _, each = train(recipe(log_every=1, **chosen), colours)
    _, yielded = train(recipe(log_every=3, **chosen), colours)
    losses = [record.train_loss for record in each if isinstance(record, Step)]
    assert len(losses) == 9
    expected = [sum(losses[start : start + 3]) / 3 for start in (0, 3, 6)]
    assert [r.train_loss for r in yielded if isinstance(r, Step)] == pytest.approx(expected, rel=1e-6)
    assert epochs_of(yielded)[0].train_loss == pytest.approx(sum(losses) / 9, rel=1e-6)


def test_train_seconds_grow_and_images_per_second_and_memory_are_positive(colours: Dataset) -> None:
    _, yielded = train(recipe(epochs=3, batch_size=10, log_every=2), colours)
    records = [record for record in yielded if record]
    assert [r.train_seconds for r in records] == sorted(r.train_seconds for r in records)
    assert all(record.images_per_second > 0 and record.memory_mb > 1 for record in records)


@pytest.mark.slow
def test_figures_that_wait_for_long_are_summed_up_all_the_same(make_colours) -> None:
    dataset = make_colours(train=3 * PENDING_MOST, height=2, width=2)
    chosen = {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 1, "batch_size": 128}
    _, once = train(recipe(log_every=1_000, **chosen), dataset)
    _, each = train(recipe(log_every=1, **chosen), dataset)
    steps = [record for record in each if isinstance(record, Step)]
    assert len(steps) == 96
    (epoch,) = epochs_of(once)
    assert figures([epoch]) == figures(epochs_of(each))
    assert epoch.train_loss == pytest.approx(sum(step.train_loss for step in steps) / 96, rel=1e-6)
    assert epoch.train_accuracy == pytest.approx(sum(step.train_accuracy for step in steps) / 96, rel=1e-6)


# Repeatable


@pytest.mark.slow
def test_two_trainings_of_one_seed_are_equal(digits: Dataset) -> None:
    chosen = recipe(model="convnet", epochs=1, augment="shift=1", validation_share=0.1, log_every=5)
    first, first_yielded = train(chosen, digits)
    torch.rand(7)  # what others draw must not matter
    second, second_yielded = train(chosen, digits)
    assert_same_weights(first.model.state_dict(), second.model.state_dict())
    assert figures(first_yielded) == figures(second_yielded)


def test_another_seed_gives_other_first_weights_and_another_order(digits: Dataset) -> None:
    one, other = (Training(recipe(seed=seed), digits, CPU) for seed in (0, 1))
    assert not torch.equal(one.model.state_dict()["1.weight"], other.model.state_dict()["1.weight"])
    other.model.load_state_dict(one.model.state_dict())
    next(fit(one, digits))
    next(fit(other, digits))
    assert not torch.equal(one.model.state_dict()["1.weight"], other.model.state_dict()["1.weight"])


def test_another_seed_moves_the_images_otherwise(digits: Dataset) -> None:
    one, other = (Training(recipe(seed=seed, shuffle=False, augment="shift=2"), digits, CPU) for seed in (0, 1))
    other.model.load_state_dict(one.model.state_dict())
    next(fit(one, digits))
    next(fit(other, digits))
    assert not torch.equal(one.model.state_dict()["1.weight"], other.model.state_dict()["1.weight"])


def test_each_epoch_has_an_order_of_its_own(digits: Dataset) -> None:
    # Of frozen weights (a learning rate too small to matter), only the order decides the loss of the first step.
    chosen = recipe(optimizer="sgd", learning_rate=1e-8, epochs=3, log_every=1, batch_size=500)
    _, yielded = train(chosen, digits)
    firsts = [record.train_loss for record in yielded if isinstance(record, Step) and record.step % 3 == 1]
    assert len(firsts) == 3
    assert all(abs(one - other) > 1e-5 for one, other in itertools.combinations(firsts, 2))


# Against references


def test_figures_equal_those_of_a_plain_loop(digits: Dataset) -> None:
    chosen = recipe(optimizer="sgd", learning_rate=0.1, momentum=0.9, batch_size=100, epochs=3, shuffle=False)
    training, yielded = train(chosen, digits)

    torch.manual_seed(chosen.seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images, labels = pixels_of(digits, "train"), torch.from_numpy(digits.splits["train"].labels)
    for epoch in epochs_of(yielded):
        loss_sum, correct = 0.0, 0
        for batch, truth in zip(images.split(100), labels.split(100), strict=True):
            logits = model(batch)
            loss = nn.functional.cross_entropy(logits, truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(truth)
            correct += int((logits.argmax(1) == truth).sum())
        assert epoch.train_loss == pytest.approx(loss_sum / 1437, abs=1e-5)
        assert epoch.train_accuracy == pytest.approx(correct / 1437, abs=1e-5)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(training.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", ["mlp", "convnet"])
def test_validation_figures_equal_scikit_learns(digits: Dataset, model: str) -> None:
    training, yielded = train(recipe(model=model, epochs=1, validation_share=0.2, scaling="half"), digits)
    training.model.eval()
    with torch.no_grad():
        logits = training.model((pixels_of(digits, "train", training.val_indices) - 0.5) / 0.5)
    truth = digits.splits["train"].labels[training.val_indices.numpy()]
    (epoch,) = epochs_of(yielded)
    assert epoch.val_accuracy == accuracy_score(truth, logits.argmax(1))
    assert epoch.val_loss == pytest.approx(log_loss(truth, logits.double().softmax(1), labels=range(10)), abs=1e-5)


def test_validation_is_the_same_in_several_batches(make_colours) -> None:
    dataset = make_colours(train=1300)
    training, yielded = train(recipe(epochs=1, validation_share=0.5), dataset)  # 650: a batch of 500 and one of 150
    training.model.eval()
    with torch.no_grad():
        logits = training.model(pixels_of(dataset, "train", training.val_indices))
    truth = dataset.splits["train"].labels[training.val_indices.numpy()]
    (epoch,) = epochs_of(yielded)
    assert epoch.val_accuracy == pytest.approx(accuracy_score(truth, logits.argmax(1)))
    assert epoch.val_loss == pytest.approx(log_loss(truth, logits.double().softmax(1), labels=range(3)), abs=1e-5)


def test_validation_does_not_disturb_training(colours: Dataset) -> None:
    training, _ = train(recipe(model="convnet", epochs=2, validation_share=0.2), colours)
    assert training.model[1].num_batches_tracked.item() == training.step  # batch norm counts what it learns from


def test_label_smoothing_is_torchs(colours: Dataset) -> None:
    chosen = recipe(optimizer="sgd", learning_rate=1e-8, label_smoothing=0.2, epochs=1, validation_share=0.2)
    training, yielded = train(chosen, colours)
    (epoch,) = epochs_of(yielded)
    labels = torch.from_numpy(colours.splits["train"].labels)
    with torch.no_grad():
        train_logits = training.model(pixels_of(colours, "train", training.train_indices))
        val_logits = training.model(pixels_of(colours, "train", training.val_indices))
    smoothed = nn.functional.cross_entropy(train_logits, labels[training.train_indices], label_smoothing=0.2)
    plain = nn.functional.cross_entropy(val_logits, labels[training.val_indices])
    assert epoch.train_loss == pytest.approx(smoothed.item(), abs=1e-5)
    assert epoch.val_loss == pytest.approx(plain.item(), abs=1e-5)


# Which images


def test_a_dataset_with_validation_images_of_its_own_is_validated_on_these(make_colours) -> None:
    parts = make_colours(train=60, test=30).splits
    save_dataset("parted", ("red", "green", "blue"), {"train": parts["train"], "val": parts["test"]}, "generated")
    dataset = open_dataset("parted")
    chosen = recipe(epochs=3, validation_share=0.5, keep="best", learning_rate=0.01)
    training, yielded = train(chosen, dataset)
    assert validation_split(dataset) == "val"
    assert (len(training.train_indices), len(training.val_indices)) == (60, 30)

    last = epochs_of(yielded)[-1]
    training.model.eval()
    with torch.no_grad():
        logits = training.model(pixels_of(dataset, "val"))
    labels = torch.from_numpy(dataset.splits["val"].labels)
    assert last.val_accuracy == accuracy_score(labels, logits.argmax(1))
    assert last.val_loss == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), abs=1e-5)


@pytest.mark.parametrize(("drop_last", "steps", "images"), [(True, 14, 1400), (False, 15, 1437)])
def test_drop_last_leaves_out_what_does_not_fill_a_batch(
    digits: Dataset, drop_last: bool, steps: int, images: int
) -> None:
    training, _ = train(recipe(epochs=2, batch_size=100, drop_last=drop_last), digits)
    assert (training.step, training.images_seen) == (2 * steps, 2 * images)


def test_a_batch_that_the_images_do_not_fill_is_refused_where_such_are_dropped(colours: Dataset) -> None:
    with pytest.raises(LoupeError, match="batch_size to 90 or less"):
        Training(recipe(batch_size=91, drop_last=True), colours, CPU)
    assert Training(recipe(batch_size=90, drop_last=True), colours, CPU).steps_per_epoch == 1
    assert Training(recipe(batch_size=91), colours, CPU).steps_per_epoch == 1


# Divergence


def test_a_diverging_training_names_the_step_and_a_lower_rate(colours: Dataset) -> None:
    chosen = recipe(optimizer="sgd", learning_rate=100.0, weight_decay=10.0, epochs=100, batch_size=9, log_every=1)
    training = Training(chosen, colours, CPU)
    with pytest.raises(LoupeError, match=r"at step \d+: .* learning_rate, say 10 in place of 100\.") as raised:
        for _ in fit(training, colours):
            pass
    assert f"at step {training.step}:" in str(raised.value)


def test_weights_that_diverge_in_the_last_step_of_an_epoch_are_found_by_validation(colours: Dataset) -> None:
    # One step an epoch: its own loss is of the weights before it, which were still finite.
    chosen = recipe(
        optimizer="sgd", learning_rate=100.0, weight_decay=10.0, epochs=100, batch_size=90, validation_share=0.1
    )
    training = Training(chosen, colours, CPU)
    with pytest.raises(LoupeError, match="training has diverged"):
        for record in fit(training, colours):
            if isinstance(record, Epoch):
                assert torch.tensor([record.train_loss, record.val_loss]).isfinite().all()


# Which weights are kept


def test_best_keeps_the_weights_of_the_best_epoch(digits: Dataset) -> None:
    training = Training(recipe(epochs=3, batch_size=100, validation_share=0.1, keep="best"), digits, CPU)
    best: dict[str, Tensor] = {}
    epochs = []
    for record in fit(training, digits):
        if isinstance(record, Epoch):
            epochs.append(record)
            if record.epoch == 2:
                best = copy.deepcopy(training.model.state_dict())
                with torch.no_grad():  # so that the last epoch cannot be the best
                    training.model[-1].weight.neg_()
    assert epochs[2].val_accuracy < epochs[0].val_accuracy < epochs[1].val_accuracy
    assert_same_weights(training.kept_weights(), best)
    kept = training.kept_figures()
    assert kept["kept"] == "epoch 2, the best of 3 by validation accuracy"
    assert kept["train_loss"] == epochs[1].train_loss


def test_of_equal_accuracies_the_lower_loss_is_best(colours: Dataset) -> None:
    chosen = recipe(optimizer="sgd", learning_rate=1e-5, epochs=3, validation_share=0.2, keep="best")
    training, yielded = train(chosen, colours)
    epochs = epochs_of(yielded)
    assert len({epoch.val_accuracy for epoch in epochs}) == 1
    assert epochs[0].val_loss > epochs[1].val_loss > epochs[2].val_loss
    assert training.best == epochs[2]


def test_last_keeps_the_weights_of_the_last_step(digits: Dataset) -> None:
    training, yielded = train(recipe(epochs=2, batch_size=100, validation_share=0.1, keep="last"), digits)
    assert_same_weights(training.kept_weights(), training.model.state_dict())
    assert training.kept_figures()["kept"] == "epoch 2, the last"
    assert training.kept_figures()["train_loss"] == epochs_of(yielded)[-1].train_loss


def test_an_epoch_cut_short_keeps_what_there_is(digits: Dataset) -> None:
    training = Training(recipe(epochs=2, batch_size=100, log_every=4), digits, CPU)
    losses = [step.train_loss for step in itertools.islice(fit(training, digits), 8) if step]
    kept = training.kept_figures()
    assert kept["kept"] == "step 8, within epoch 1"
    assert kept["train_loss"] == pytest.approx(sum(losses) / 2)
    assert_same_weights(training.kept_weights(), training.model.state_dict())


# Evaluations within the training


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "convnet"])
@pytest.mark.parametrize(("share", "judged"), [(0.2, "val"), (0.0, "test")])
def test_evaluations_equal_scikit_learns(digits: Dataset, model: str, share: float, judged: str) -> None:
    # 1,437 images are 15 steps an epoch; 1,150 are 12.
    chosen = recipe(model=model, epochs=2, batch_size=100, validation_share=share, evaluate_every=5, log_every=5)
    training = Training(chosen, digits, CPU)
    indices = training.val_indices if judged == "val" else torch.arange(360)
    split = digits.splits["train" if judged == "val" else "test"]
    pixels = as_tensor(split.images)[indices].permute(0, 3, 1, 2) / 255
    found = []
    for record in fit(training, digits):
        if isinstance(record, Evaluated):
            with torch.no_grad():
                logits = copy.deepcopy(training.model).eval()(pixels)
            truth = split.labels[indices.numpy()]
            loss = log_loss(truth, logits.double().softmax(1), labels=range(10))
            assert record.loss == pytest.approx(loss, abs=1e-5)
            assert record.accuracy == accuracy_score(truth, logits.argmax(1))
            assert (record.step, record.split) == (training.step, judged)
            found.append(record.step)
    assert found == {"val": [5, 10, 15, 20], "test": [5, 10, 15, 20, 25, 30]}[judged]


def test_the_evaluation_of_an_epochs_last_step_comes_between_its_step_and_its_epoch(colours: Dataset) -> None:
    chosen = recipe(epochs=2, batch_size=30, log_every=3, evaluate_every=3)
    _, yielded = train(chosen, colours)
    assert [type(record) for record in yielded if record] == [Step, Evaluated, Epoch] * 2
    assert [record.step for record in yielded if record] == [3, 3, 3, 6, 6, 6]


def test_nothing_is_evaluated_where_there_is_nothing_to_judge_by(make_colours) -> None:
    _, yielded = train(recipe(epochs=1, batch_size=30, evaluate_every=1), make_colours(test=0))
    assert [type(record) for record in yielded] == [type(None)] * 2 + [Epoch]


@pytest.mark.slow
def test_evaluations_do_not_disturb_training(colours: Dataset) -> None:
    chosen = {"model": "convnet", "epochs": 2, "batch_size": 9, "augment": "shift=1", "validation_share": 0.2}
    plain, expected = train(recipe(**chosen), colours)
    evaluated, yielded = train(recipe(evaluate_every=3, **chosen), colours)
    assert len(evaluations_of(yielded)) == 16 // 3
    assert figures(epochs_of(yielded)) == figures(epochs_of(expected))
    assert_same_weights(evaluated.model.state_dict(), plain.model.state_dict())


def test_an_evaluation_finds_weights_that_have_diverged(colours: Dataset) -> None:
    chosen = recipe(
        optimizer="sgd", learning_rate=100.0, weight_decay=10.0, epochs=100, batch_size=90, evaluate_every=1
    )
    training = Training(chosen, colours, CPU)
    with pytest.raises(LoupeError, match=r"at step \d+: training has diverged"):
        for record in fit(training, colours):
            if isinstance(record, Epoch):
                assert record.step == training.step


# Optimisers and schedules


def reference(name: str, steps: int) -> list[float]:
    """The learning rate before each step and after the last, from torch's own schedule."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    schedule = {
        "cosine": lambda: CosineAnnealingLR(optimizer, T_max=steps),
        "one-cycle": lambda: OneCycleLR(optimizer, 0.1, total_steps=steps + 1),
    }[name]()
    rates = [schedule.get_last_lr()[0]]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    return rates


@pytest.mark.parametrize("name", ["cosine", "one-cycle"])
def test_schedules_follow_torchs(colours: Dataset, name: str) -> None:
    chosen = recipe(optimizer="sgd", learning_rate=0.1, schedule=name, epochs=4, batch_size=30, log_every=1)
    training = Training(chosen, colours, CPU)
    made_with, to_come = [], [training.learning_rate]
    for record in fit(training, colours):
        if isinstance(record, Step):
            made_with.append(training.optimizer.param_groups[0]["lr"])
            to_come.append(record.learning_rate)
    expected = pytest.approx(reference(name, 12), rel=1e-9, abs=1e-12)
    assert to_come == expected
    assert [*made_with, to_come[-1]] == expected
    assert len(set(made_with)) > 10


def test_a_constant_rate_stays(colours: Dataset) -> None:
    _, yielded = train(recipe(learning_rate=0.02, epochs=3, batch_size=30, log_every=1), colours)
    assert {record.learning_rate for record in yielded if record} == {0.02}


@pytest.mark.parametrize(
    ("optimizer", "rate", "expected"),
    [
        (
            "sgd",
            0.05,
            lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.01),
        ),
        ("adam", 0.01, lambda weights: torch.optim.Adam(weights, lr=0.01, weight_decay=0.01)),
        ("adamw", 0.01, lambda weights: torch.optim.AdamW(weights, lr=0.01, weight_decay=0.01)),
    ],
)
def test_each_optimizer_is_torchs_and_lowers_the_loss(digits: Dataset, optimizer: str, rate: float, expected) -> None:
    chosen = recipe(
        optimizer=optimizer,
        learning_rate=rate,
        momentum=0.8,
        nesterov=True,
        weight_decay=0.01,
        epochs=3,
        batch_size=100,
        shuffle=False,
    )
    training, yielded = train(chosen, digits)
    epochs = epochs_of(yielded)
    assert epochs[-1].train_loss < 0.8 * epochs[0].train_loss

    torch.manual_seed(chosen.seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    plain = expected(model.parameters())
    images, labels = pixels_of(digits, "train"), torch.from_numpy(digits.splits["train"].labels)
    for _ in range(3):
        for batch, truth in zip(images.split(100), labels.split(100), strict=True):
            plain.zero_grad()
            nn.functional.cross_entropy(model(batch), truth).backward()
            plain.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(training.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


# Every choice of a recipe


CHOICES = [
    (name, choice)
    for name, about in FIELDS.items()
    for choice in (about.metadata["choices"] or ((False, True) if TYPES[name] is bool else ()))
    # A machine may have no GPU; torchvision's networks have tests of their own.
    if (name, choice) != ("device", "cuda") and choice not in BACKBONES
]


@pytest.mark.parametrize(("name", "choice"), CHOICES)
def test_every_choice_of_a_field_trains(make_colours, name: str, choice: object) -> None:
    dataset = make_colours(train=60, height=28, width=30)  # large enough for every model
    settings = {"optimizer": "sgd", "learning_rate": 0.01, "validation_share": 0.2, "epochs": 2, "batch_size": 16}
    chosen = tuning.resolve(tuning.choose_device(recipe(**settings | {name: choice})), dataset)
    training, yielded = train(chosen, dataset)
    epochs = epochs_of(yielded)
    assert len(epochs) == 2
    assert epochs[1].train_loss < epochs[0].train_loss
    assert all(value.dtype != torch.bfloat16 for value in training.model.state_dict().values())


@pytest.fixture
def as_convolutions_were():
    """What a test sets for its process is as before afterwards."""
    before = torch.backends.mkldnn.enabled
    yield
    torch.backends.mkldnn.set_flags(before)


@pytest.mark.slow
@pytest.mark.usefixtures("as_convolutions_were")
# Of one with more layers the last bits grow into more than a tolerance within these few steps.
@pytest.mark.parametrize("model", ["lenet5", "convnet"])
def test_native_convolutions_give_the_results_of_onednns(make_colours, model: str) -> None:
    dataset = make_colours(train=48, height=28, width=30)
    settings = {"optimizer": "sgd", "learning_rate": 0.003, "batch_size": 16, "epochs": 2, "validation_share": 0.25}
    trained = {}
    for convolutions in ("onednn", "native"):
        chosen = recipe(model=model, convolutions=convolutions, evaluate_every=2, **settings)
        tuning.apply_settings(chosen)
        trained[convolutions] = train(chosen, dataset)
    (theirs, expected), (native, yielded) = trained["onednn"], trained["native"]
    for name, value in native.model.state_dict().items():
        torch.testing.assert_close(value, theirs.model.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert [type(record) for record in yielded] == [type(record) for record in expected]
    for ours, other in zip(epochs_of(yielded), epochs_of(expected), strict=True):
        assert (ours.train_loss, ours.val_loss) == pytest.approx((other.train_loss, other.val_loss), rel=1e-3)


def test_bfloat16_computes_in_bfloat16(digits: Dataset) -> None:
    (plain,) = epochs_of(train(recipe(epochs=1), digits)[1])
    (rounded,) = epochs_of(train(recipe(epochs=1, precision="bfloat16"), digits)[1])
    assert rounded.train_loss != plain.train_loss
    assert rounded.train_loss == pytest.approx(plain.train_loss, rel=0.01)


def test_augmentation_is_for_training_alone(digits: Dataset) -> None:
    settings = {"optimizer": "sgd", "learning_rate": 1e-8, "epochs": 1, "validation_share": 0.2}
    (still,) = epochs_of(train(recipe(**settings), digits)[1])
    (moved,) = epochs_of(train(recipe(**settings, augment="shift=4"), digits)[1])
    assert abs(moved.train_loss - still.train_loss) > 1e-3
    assert moved.val_loss == pytest.approx(still.val_loss, abs=1e-5)


def test_classes_are_weighted_as_in_scikit_learn(colours: Dataset) -> None:
    chosen = recipe(class_weights="balanced", validation_share=0.4, split_seed=3)
    training = Training(chosen, colours, CPU)
    labels = colours.splits["train"].labels[training.train_indices.numpy()]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert len(set(np.bincount(labels))) > 1
    np.testing.assert_allclose(training.class_weights.numpy(), expected, rtol=1e-6)
    assert Training(recipe(), colours, CPU).class_weights is None


def test_a_class_without_training_images_has_no_weight_and_does_not_hurt() -> None:
    images = np.random.randint(0, 256, (20, 8, 8, 1)).astype(np.uint8)
    save_dataset("lacking", ("a", "b", "c"), {"train": Split(images, np.arange(20) % 2)}, "drawn")
    training, yielded = train(recipe(class_weights="balanced", epochs=1), open_dataset("lacking"))
    assert training.class_weights.tolist() == [1.0, 1.0, 0.0]
    assert epochs_of(yielded)[0].train_loss > 0


# Batches of one, of which batch norm has nothing to compare


def of_one_left(height: int, width: int, make_colours) -> Dataset:
    return make_colours(train=9, test=0, height=height, width=width)  # of batches of 4 the last has one image


@pytest.mark.parametrize("model", ["convnet", "resnet-fast"])
def test_a_last_batch_of_one_pixel_is_refused_with_batch_norm(make_colours, model: str) -> None:
    dataset = of_one_left(1, 1, make_colours)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        build_model(model, (1, 1, 3), 3)(torch.rand(1, 3, 1, 1))
    with pytest.raises(LoupeError) as refused:
        Training(recipe(model=model, batch_size=4), dataset, CPU)
    assert str(refused.value) == (
        "With 9 training images in batches of 4 the last batch is a single image, and batch norm, which "
        f"{model} has, needs at least two. Set drop_last to true, which leaves it out, or another batch_size."
    )
    with pytest.raises(LoupeError, match=r"needs at least two\. Set batch_size to 2 or more\.$"):
        Training(recipe(model=model, batch_size=1), dataset, CPU)
    for way_out in ({"batch_size": 4, "drop_last": True}, {"batch_size": 3}, {"batch_size": 9}):
        training, _ = train(recipe(model=model, epochs=1, **way_out), dataset)
        assert training.epoch == 1


@pytest.mark.parametrize(
    ("model", "height", "width"),
    [
        ("mlp", 1, 1),
        *[(model, *size) for model in ("convnet", "resnet-fast") for size in ((1, 2), (2, 2), (4, 4), (5, 4), (9, 9))],
        ("convnet-fast", 20, 20),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_last_batch_of_one_image_is_trained_on_where_that_is_harmless(
    make_colours, model: str, height: int, width: int, batch_size: int
) -> None:
    training, yielded = train(
        recipe(model=model, batch_size=batch_size, epochs=1), of_one_left(height, width, make_colours)
    )
    assert training.images_seen == 9
    assert len(epochs_of(yielded)) == 1


def test_gradients_are_clipped(digits: Dataset) -> None:
    settings = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1.0, "epochs": 1, "batch_size": 1437}
    training = Training(recipe(**settings, clip_norm=0.01), digits, CPU)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    list(fit(training, digits))
    moved = sum((value - before[name]).square().sum() for name, value in training.model.state_dict().items())
    assert moved.sqrt().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(("keep", "kept"), [("last", "epoch 3, the last"), ("best", "epoch 1, the best of 3")])
def test_training_ends_when_patience_does(digits: Dataset, keep: str, kept: str) -> None:
    # So small a rate changes no answer: no epoch is better than the first.
    chosen = recipe(optimizer="sgd", learning_rate=1e-8, epochs=9, validation_share=0.2, patience=2, keep=keep)
    training, yielded = train(chosen, digits)
    assert [epoch.epoch for epoch in epochs_of(yielded)] == [1, 2, 3]
    assert training.is_over
    assert training.kept_figures()["kept"].startswith(kept)


def test_a_better_epoch_renews_patience(digits: Dataset) -> None:
    training, yielded = train(recipe(epochs=4, validation_share=0.2, patience=3), digits)
    assert len(epochs_of(yielded)) == 4
    assert training.best.epoch > 1


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "convnet"])
def test_colours_are_learned(colours: Dataset, model: str) -> None:
    chosen = recipe(model=model, epochs=15, batch_size=30, learning_rate=0.01, scaling="dataset", validation_share=0.2)
    _, yielded = train(chosen, colours)
    assert epochs_of(yielded)[-1].val_accuracy > 0.9


def test_each_step_moves_its_images_otherwise(digits: Dataset) -> None:
    chosen = recipe(
        optimizer="sgd", learning_rate=1e-8, shuffle=False, augment="shift=3", epochs=3, log_every=1, batch_size=1437
    )
    losses = [record.train_loss for record in train(chosen, digits)[1] if isinstance(record, Step)]
    assert len(losses) == 3
    assert all(abs(one - other) > 1e-5 for one, other in itertools.combinations(losses, 2))


# Going on


def test_the_best_weights_of_before_are_not_forgotten(digits: Dataset) -> None:
    chosen = recipe(epochs=2, batch_size=100, validation_share=0.1, keep="best")
    before = Training(chosen, digits, CPU)
    next(record for record in fit(before, digits) if isinstance(record, Epoch))
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    after = Training(chosen, digits, CPU)
    after.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():  # so that the last epoch cannot be the best
        after.model[-1].weight.neg_()
    for _ in fit(after, digits):
        pass
    assert after.best == before.best
    assert_same_weights(after.kept_weights(), before.kept_weights())


def written(training: Training) -> bytes:
    file = io.BytesIO()
    torch.save(training.state_dict(), file)
    return file.getvalue()


def going_on_from(state: bytes, chosen: Recipe, dataset: Dataset) -> Training:
    training = Training(chosen, dataset, CPU)
    training.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
    return training


CUT = {
    # 72 images in batches of 9 are eight steps, gathered in one go.
    "convnet": {
        "model": "convnet",
        "optimizer": "sgd",
        "schedule": "one-cycle",
        "learning_rate": 0.05,
        "batch_size": 9,
        "augment": "flip shift=2 rotate=5 crop=0.9 erase=0.2",
        "validation_share": 0.2,
        "scaling": "dataset",
        "class_weights": "balanced",
        "clip_norm": 1.0,
        "patience": 9,
        "keep": "best",
        "evaluate_every": 5,
        "log_every": 3,
    },
    # 840 images in batches of 100 are nine steps, gathered by twos; the 560 held back are two batches.
    "mlp": {
        "model": "mlp",
        "optimizer": "adamw",
        "schedule": "cosine",
        "warmup_epochs": 0.5,
        "batch_size": 100,
        "augment": "shift=1",
        "validation_share": 0.4,
        "label_smoothing": 0.1,
        "evaluate_every": 4,
        "log_every": 4,
    },
    # Nothing is held back: test images are judged by. Each batch is gathered for itself.
    "large batches": {"model": "convnet", "batch_size": 300, "drop_last": True, "augment": "flip", "evaluate_every": 1},
    "no shuffling": {"model": "mlp", "batch_size": 7, "shuffle": False, "augment": "erase=0.5", "log_every": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CUT)
def test_wherever_a_training_is_cut_it_goes_on_as_if_it_had_not_been(make_colours, name: str) -> None:
    count = {"convnet": 90, "mlp": 1400, "large batches": 1000, "no shuffling": 90}[name]
    check_that_it_goes_on_from_everywhere(recipe(epochs=2, **CUT[name]), make_colours(train=count, height=6, width=5))


@pytest.mark.slow
def test_wherever_a_training_on_a_table_is_cut_it_goes_on_as_if_it_had_not_been(blobs: Dataset) -> None:
    chosen = change(find_recipe("blobs-mlp"), {"device": "cpu", "epochs": 2, "log_every": 3, "evaluate_every": 4})
    assert 4 * chosen.batch_size == GATHERED_AT_ONCE
    check_that_it_goes_on_from_everywhere(chosen, blobs)
    check_that_it_goes_on_from_everywhere(change(chosen, {"validation_share": 0.1, "scaling": "dataset"}), blobs)


def check_that_it_goes_on_from_everywhere(chosen: Recipe, dataset: Dataset) -> None:
    whole, expected = train(chosen, dataset)
    assert len(epochs_of(expected)) == 2
    assert bool(evaluations_of(expected)) == bool(chosen.evaluate_every)

    saved = Training(chosen, dataset, CPU)
    yielded, states = [], []
    for record in fit(saved, dataset):
        yielded.append(record)
        states.append(written(saved))
    assert figures(yielded) == figures(expected)  # saving changes nothing
    assert_same_weights(saved.model.state_dict(), whole.model.state_dict())

    for cut, state in enumerate(states, start=1):
        torch.rand(3)  # what others draw must not matter
        going_on = going_on_from(state, chosen, dataset)
        assert figures(yielded[:cut] + list(fit(going_on, dataset))) == figures(expected), cut
        assert_same_weights(going_on.model.state_dict(), whole.model.state_dict())
        assert_same_weights(going_on.kept_weights(), whole.kept_weights())
        assert going_on.images_seen == whole.images_seen
        assert going_on.kept_figures()["kept"] == whole.kept_figures()["kept"]


@pytest.mark.slow
def test_a_training_that_is_cut_waits_as_long_as_if_it_had_not_been(digits: Dataset) -> None:
    chosen = recipe(epochs=50, batch_size=50, validation_share=0.1, patience=2, log_every=10)
    whole, expected = train(chosen, digits)
    assert 3 < whole.epoch < 50
    assert whole.epoch == whole.last_improvement + 2
    saved = Training(chosen, digits, CPU)
    states = [written(saved) for record in fit(saved, digits) if isinstance(record, Epoch)]
    for cut, state in enumerate(states, start=1):
        going_on = list(fit(going_on_from(state, chosen, digits), digits))
        assert [epoch.epoch for epoch in epochs_of(going_on)] == list(range(cut + 1, whole.epoch + 1))
        assert figures(epochs_of(going_on)) == figures(epochs_of(expected)[cut:])


@pytest.mark.slow
def test_a_training_that_is_made_longer_ends_as_one_of_that_length(digits: Dataset) -> None:
    settings = {"model": "convnet", "optimizer": "sgd", "augment": "shift=1", "batch_size": 100, "log_every": 4}
    short, first = train(recipe(epochs=1, **settings), digits)
    longer = going_on_from(written(short), recipe(epochs=2, **settings), digits)
    whole, expected = train(recipe(epochs=2, **settings), digits)
    assert figures([*first, *fit(longer, digits)]) == figures(expected)
    assert_same_weights(longer.model.state_dict(), whole.model.state_dict())


def test_a_training_that_is_made_longer_is_given_its_patience_anew(digits: Dataset) -> None:
    # So small a rate changes no answer: no epoch is better than the first.
    settings = {"optimizer": "sgd", "learning_rate": 1e-8, "validation_share": 0.2, "patience": 2}
    impatient, yielded = train(recipe(epochs=9, **settings), digits)
    assert len(epochs_of(yielded)) == 3
    as_long = going_on_from(written(impatient), recipe(epochs=9, **settings), digits)
    assert list(fit(as_long, digits)) == []
    longer = going_on_from(written(impatient), recipe(epochs=10, **settings), digits)
    assert [epoch.epoch for epoch in epochs_of(list(fit(longer, digits)))] == [4, 5]
    # ... and only once: cut again, it does not begin to wait from there.
    again = going_on_from(written(longer), recipe(epochs=10, **settings), digits)
    assert list(fit(again, digits)) == []


def test_augmentation_is_refused_for_a_table(blobs: Dataset) -> None:
    with pytest.raises(LoupeError, match=r"^augment is 'flip', which changes images, but blobs is a table\."):
        Training(change(find_recipe("blobs-mlp"), {"augment": "flip"}), blobs, CPU)
