import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from damage import FAILURE, copy_of, cut_log, die_at_once, die_in_training, fail
from processes import wait_until
from screen import button, buttons, click, errors, figure, go_to, links, open_page, show, title, words

from engine.data.catalogue import CATALOGUE
from engine.recipes.recipe import FIELDS, MODELS, PUBLISHED, RECIPES, TYPES, Recipe, change, find_recipe
from engine.runs.records import (
    Cancelled,
    Epoch,
    Evaluated,
    Evaluating,
    Finished,
    Preparing,
    Queued,
    Record,
    Started,
    Step,
    Stopped,
    to_line,
)
from engine.runs.run import ACTIVE, Run, create_run, list_runs, open_run
from engine.training.measurements import keep_measurement, key_of, measurements_file, measurements_here
from ui.live import history_csv
from ui.tables import thinned

# What the form ends with.
START = ["Measure again", "Start training", "One-minute check", "Find a learning rate"]
STARTED = Started("digits", "abc", list("01"), 1280, 100, 2000, 20, 10, 1000, "cpu", 2, "float32", "2.0")
STEP = Step(50, 3, 0.51234, 0.9125, 0.01, 12345.6, 5.0, 734.6)
EPOCHS = [Epoch(20 * n, n, 0.6, 0.9, 0.7, 0.8 + n / 100, 0.01, 12000.0, 2.0 * n) for n in (1, 2)]
ENDED = (2, 50, "step 50, within epoch 3", 0.51234, 0.9125, 0.6, 0.82, 0.65, 0.8125, 125.0, 12345.6)


def logged(*records: Record) -> Run:
    run = create_run(Recipe(name="digits-quick"))
    run.log.write_text("".join(to_line(record) for record in records))
    return run


def figures(app) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


def field(app, recipe: str, name: str):
    """The one widget of a recipe's field."""
    (widget,) = [
        each for each in [*app.selectbox, *app.number_input, *app.text_input] if each.key == f"{recipe}:{name}"
    ]
    return widget


def choose(app, recipe: str):
    app.selectbox("recipe").set_value(recipe)
    return show(app)


# The form


@pytest.mark.parametrize("name", RECIPES)
def test_the_fields_start_at_the_recipes_values(name: str) -> None:
    app = choose(open_page("train"), name)
    for about in FIELDS.values():
        if about.name not in ("name", "augment"):
            own = getattr(RECIPES[name], about.name)
            # A recipe for a folder leaves the dataset open: here is none of one's own.
            assert field(app, name, about.name).value == (None if about.name == "dataset" and not own else own)
    assert not app.error


def test_every_field_says_its_unit_and_what_it_is() -> None:
    app = open_page("train")
    for about in FIELDS.values():
        if about.name in ("name", "augment"):
            continue
        widget = field(app, "digits-quick", about.name)
        assert about.metadata["help"] in widget.help
        assert about.metadata["unit"] in widget.label
        assert widget.label.lower().startswith(about.name.replace("_", " "))
        if TYPES[about.name] in (int, float):
            assert (widget.min, widget.max) == (about.metadata["low"], about.metadata["high"])
    assert field(app, "digits-quick", "dataset").options == [
        source.title for source in CATALOGUE.values() if source.kind == "images"
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"validation_share": 0.0, "keep": "best"}, "keep is 'best', which needs validation images to choose by"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs momentum, but momentum is 0."),
    ],
)
def test_what_does_not_go_together_is_told_and_cannot_be_started(changes: dict, sentence: str) -> None:
    app = open_page("train")
    for name, value in changes.items():
        field(app, "digits-quick", name).set_value(value)
    show(app)
    (error,) = errors(app)
    assert error.startswith(sentence)
    assert "Start training" not in buttons(app)


@pytest.mark.parametrize(
    ("dataset", "recipe"),
    [("digits", "digits-quick"), ("mnist", "mnist-lenet5"), ("kmnist", "kmnist-lenet"), ("nope", "digits-quick")],
)
def test_a_link_chooses_a_recipe_and_the_dataset(dataset: str, recipe: str) -> None:
    app = open_page("train", dataset=dataset)
    assert app.selectbox("recipe").value == recipe
    expected = dataset if dataset in CATALOGUE else "digits"
    assert app.selectbox[1].label == "Dataset"
    assert app.selectbox[1].value == expected


def test_a_link_chooses_a_dataset_of_ones_own(make_colours) -> None:
    make_colours("x_1")
    assert open_page("train", dataset="x_1").selectbox[1].value == "x_1"


def test_a_link_to_another_dataset_is_not_held_up_by_an_earlier_choice() -> None:
    app = open_page("train", dataset="mnist")
    go_to(app, "explore", dataset="kmnist")
    go_to(app, "train", dataset="kmnist")
    assert app.selectbox[1].value == "kmnist"


def test_what_was_chosen_is_kept_over_a_visit_to_another_page() -> None:
    app = open_page("train")
    field(app, "digits-quick", "epochs").set_value(77)
    go_to(show(app), "runs")
    assert field(go_to(app, "train"), "digits-quick", "epochs").value == 77


def test_a_published_figure_is_shown_for_the_settings_that_it_is_for() -> None:
    app = choose(open_page("train"), "mnist-lenet5")
    assert "Published, to compare with: 99.05% test accuracy (LeCun et al. 1998" in words(app)
    field(app, "mnist-lenet5", "threads").set_value(1)
    assert "Published" in words(show(app))
    field(app, "mnist-lenet5", "epochs").set_value(6)
    assert "Published" not in words(show(app))


def test_a_dataset_that_has_to_be_downloaded_first_is_told(make_colours) -> None:
    sentence = "MNIST is not here yet; what is missing of its 11.6 MB is downloaded first."
    assert sentence in words(open_page("train", dataset="mnist"))
    assert "downloaded first" not in words(open_page("train", dataset="digits"))
    make_colours("mnist")
    assert "downloaded first" not in words(open_page("train", dataset="mnist"))


def test_the_model_is_described() -> None:
    app = open_page("train")
    field(app, "digits-quick", "model").set_value("mlp")
    assert MODELS["mlp"] in words(show(app))


# A recipe for a table


def test_a_recipe_for_a_table_offers_tables_and_the_network_that_takes_them() -> None:
    app = choose(open_page("train"), "blobs-mlp")
    assert field(app, "blobs-mlp", "dataset").options == ["Blobs"]
    assert field(app, "blobs-mlp", "model").options == ["mlp"]
    assert field(app, "blobs-mlp", "batch_size").label == "Batch size (rows)"
    choose(app, "mnist-lenet5")
    assert "Blobs" not in field(app, "mnist-lenet5", "dataset").options
    assert "lenet5" in field(app, "mnist-lenet5", "model").options


def test_a_link_to_a_table_chooses_the_recipe_for_it() -> None:
    assert open_page("train", dataset="blobs").selectbox("recipe").value == "blobs-mlp"


@pytest.mark.slow
def test_the_layers_of_a_network_for_rows_are_listed(blobs: Run) -> None:
    app = open_page("train", dataset="blobs")
    app.session_state["layers"] = True
    layers = show(app).dataframe[0].value
    parameters = int(layers["Parameters"].sum())
    assert parameters == 4 * 8 + 8 + 8 * 3 + 3
    assert f"{parameters} parameters, for rows of 4 numbers of blobs." in words(app)


@pytest.mark.slow
def test_a_run_on_rows_speaks_of_rows(blobs: Run) -> None:
    app = open_page("train", run=blobs.id)
    assert "Rows a second" in figures(app)
    assert list(links(app)) == ["Evaluate it", "See its mistakes"]
    assert figures(app)["Test accuracy"] == f"{blobs.history().ended.test_accuracy:.2%}"
    assert "mages" not in " ".join([words(app).partition("New training")[0], *(each.help or "" for each in app.metric)])
    history = blobs.history()
    shown = published_table(app)
    assert len(shown) == 8
    assert shown["Test accuracy"] == (f"{history.ended.test_accuracy:.2%}", "98.00%")
    assert shown["Training loss, epoch 1"] == (f"{history.epochs[0].train_loss:.4g}", "0.971")
    assert shown["Test accuracy, epoch 1"] == (f"{history.evaluations[0].accuracy:.2%}", "82.70%")


def test_a_run_on_rows_says_how_many_it_trains_on(blobs: Run) -> None:
    log = blobs.log.read_text()
    blobs.log.write_text(log[: log.index('{"record": "step"')])
    with blobs.lock():
        app = open_page("train", run=blobs.id)
    (bar,) = app.get("progress")
    assert bar.text == "Training on 850 rows: first of 140 steps"


# Starting and resuming


def test_a_training_is_started_as_it_was_set(launches) -> None:
    app = open_page("train")
    changes = {"epochs": 1000, "batch_size": 32, "learning_rate": 0.003, "device": "cpu", "shuffle": False}
    for name, value in changes.items():
        field(app, "digits-quick", name).set_value(value)
    click(app, "Start training")
    (run,) = list_runs()
    written = {name: value for name, value in run.read_recipe().as_dict().items() if name != "precision"}
    expected = change(find_recipe("digits-quick"), changes).as_dict()
    assert written == {name: value for name, value in expected.items() if name != "precision"}
    assert run.status() in ACTIVE
    assert app.query_params == {"run": run.id, "dataset": run.read_recipe().dataset}
    assert f"**{run.id}** · " in words(app)
    assert button(app, "Stop")

    # Another tab, which knows nothing of it.
    other = open_page("train")
    assert other.query_params == {"run": run.id}
    assert f"**{run.id}** · " in words(other)


def test_a_run_that_died_is_resumed(finished: Run, launches) -> None:
    die_in_training(finished)
    app = open_page("train", run=finished.id)
    assert errors(app)[0].startswith("The process of this run ended during epoch 2 without a word of its own")
    click(app, "Resume")
    assert not app.error
    assert open_run(finished.id).status() in (*ACTIVE, "finished")
    assert finished.log.read_bytes().count(b'"record": "preparing"') == 2


def kill(run: Run, launches) -> None:
    """End the process of a run, which the page started last, as a crash does."""
    launches.latest.kill()
    launches.latest.wait()
    wait_until(lambda: not run.has_process())


@pytest.mark.parametrize("damage", [fail, die_at_once])
def test_a_run_without_a_checkpoint_is_resumed_from_its_beginning(finished: Run, launches, damage) -> None:
    damage(finished)
    app = open_page("train", run=finished.id)
    assert "from the beginning" in button(app, "Resume").help
    click(app, "Resume")
    assert not app.error
    wait_until(lambda: finished.status() not in ACTIVE)
    assert f"**{finished.id}** · finished" in words(show(app))
    assert [epoch.epoch for epoch in finished.history().epochs] == [1, 2]


def test_a_stopped_run_is_resumed_and_followed_to_its_end(launches) -> None:
    app = open_page("train")
    field(app, "digits-quick", "epochs").set_value(60)
    click(app, "Start training")
    (run,) = list_runs()
    wait_until(lambda: run.history().epochs)
    run.request_stop()
    wait_until(lambda: run.status() == "stopped")
    assert f"**{run.id}** · stopped" in words(show(app))
    assert button(app, "Resume").help == "Goes on from its last checkpoint."
    made = len(run.history().epochs)
    click(app, "Resume")
    assert app.query_params["run"] == run.id
    assert button(app, "Stop"), "it is followed at once"
    wait_until(lambda: len(run.history().epochs) > made)
    run.request_stop()
    wait_until(lambda: run.status() not in ACTIVE)


def test_a_finished_run_is_trained_further(finished: Run, launches) -> None:
    app = open_page("train", run=finished.id)
    app.number_input(f"more-{finished.id}").set_value(3)
    click(show(app), "Train further")
    assert not app.error
    assert "Train further" not in buttons(app)
    wait_until(lambda: finished.status() not in ACTIVE)
    show(app)
    assert f"**{finished.id}** · finished" in words(app)
    assert "5 of 5 epochs finished." in words(app)
    history = finished.history()
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3, 4, 5]
    assert open_run(finished.id).read_recipe().epochs == 5


def test_a_run_that_has_no_checkpoint_cannot_be_trained_further(finished: Run) -> None:
    finished.checkpoint.unlink()
    assert buttons(open_page("train", run=finished.id)) == START


def test_a_second_run_waits_and_says_for_which(launches) -> None:
    app = open_page("train")
    field(app, "digits-quick", "epochs").set_value(10_000)
    click(app, "Start training")
    (first,) = list_runs()
    wait_until(lambda: first.history().epochs)
    process = launches.latest
    field(app, "digits-quick", "epochs").set_value(1)
    click(app, "Start training")
    second = list_runs()[0]
    assert second != first
    wait_until(lambda: second.status() == "queued")
    show(app)
    assert f"**{second.id}** · queued" in words(app)
    assert f"Queued: waits for {first.id}. This one starts by itself when that ends." in words(app)
    assert f"Also going on: {first.id} (running)" in links(app)
    kill(second, launches)
    process.kill()
    process.wait()


def test_what_was_measured_to_be_quickest_can_be_measured_again() -> None:
    assert button(open_page("train"), "Measure again").disabled  # nothing has been
    measurements_file().parent.mkdir(exist_ok=True)
    keep_measurement(key_of("convnet"), {"threads": 1, "precision": "float32", "convolutions": "onednn"})
    app = open_page("train")
    assert not button(app, "Measure again").disabled
    (told,) = click(app, "Measure again").toast
    assert told.value == "The next training measures what is quickest."
    assert measurements_here() == []
    assert button(show(app), "Measure again").disabled


def test_runs_that_cannot_be_written_are_told(tmp_path) -> None:
    (tmp_path / "runs").write_text("a file, where a folder should be")
    (error,) = errors(click(open_page("train"), "Start training"))
    assert error.startswith(f"{tmp_path / 'runs'} cannot be written (")


# A run that goes on


@pytest.mark.parametrize(
    ("records", "status", "share", "text"),
    [
        ([], "starting", 0, "Getting ready: loading PyTorch takes a few seconds"),
        ([Preparing(0, 0)], "starting", 0, "Getting ready: loading PyTorch takes a few seconds"),
        ([Preparing(2_500_000, 10_000_000)], "starting", 25, "Downloading: 2.5 of 10.0 MB"),
        ([Queued("cpu")], "queued", 0, "Queued: another run has the device. This one starts by itself when that ends."),
        ([STARTED], "running", 0, "Training on 1,280 images: first of 200 steps"),
        # 150 steps are left, 10 of them of this epoch, and 50 took 5 s.
        (
            [STARTED, *EPOCHS, STEP],
            "running",
            25,
            "Epoch 3 of 10, step 50 of 200: about 1 s of this epoch and 15 s of the run left",
        ),
        (
            [
                STARTED,
                *(replace(EPOCHS[0], step=20 * n, epoch=n) for n in range(1, 10)),
                replace(STEP, step=190, epoch=10, train_seconds=95.0),
            ],
            "running",
            95,
            "Epoch 10 of 10, step 190 of 200: about 5 s left",
        ),
        (
            [STARTED, *EPOCHS, Evaluating("test", 500, 2000)],
            "running",
            25,
            "Evaluating on the test images: 500 of 2,000",
        ),
    ],
)
def test_how_far_a_run_is(records: list[Record], status: str, share: int, text: str) -> None:
    run = logged(*records)
    with run.lock():
        app = open_page("train", run=run.id)
    assert f"**{run.id}** · {status}" in words(app)
    (bar,) = app.get("progress")
    assert (bar.value, bar.text) == (share, text)
    assert not button(app, "Stop").disabled
    assert not app.error
    assert "Start training" in buttons(app)


def test_the_figures_of_a_run_that_goes_on() -> None:
    run = logged(STARTED, *EPOCHS, STEP)
    with run.lock():
        app = open_page("train", run=run.id)
    assert figures(app) == {
        "Training loss": "0.5123",
        "Training accuracy": "91.25%",
        "Best, epoch 2": "82.00%",
        "Test accuracy": "...",
        "Images a second": "12,346",
        "Training time": "5 s",
        "Memory": "735 MB",
    }
    running, epochs, validation, best = figure(app, "accuracy")["data"]
    assert (running["x"], running["y"]) == ([2.5], [91.25])
    assert (epochs["x"], epochs["y"]) == ([1, 2], [90, 90])
    assert validation["y"] == pytest.approx([81, 82])
    assert (best["x"], best["y"]) == ([2], pytest.approx([82]))
    for key in ("learning_rate", "pace"):
        (trace,) = figure(app, key)["data"]
        assert (trace["x"], trace["y"]) == ([50], [0.01 if key == "learning_rate" else 12345.6])


def test_the_memory_is_that_of_the_process_or_of_the_tensors_on_a_gpu() -> None:
    for device, where in (("cpu", "its process has had"), ("cuda", "its tensors have had on the GPU")):
        run = logged(replace(STARTED, device=device), replace(STEP, memory_mb=2345.6))
        with run.lock():
            app = open_page("train", run=run.id)
        (memory,) = [each for each in app.metric if each.label == "Memory"]
        assert (memory.value, memory.help) == ("2.3 GB", f"The most that {where} so far.")


def test_the_best_epoch_is_that_of_the_highest_validation_accuracy_then_of_the_lowest_loss() -> None:
    accuracies, losses = (0.5, 0.8, 0.8, 0.7), (0.9, 0.7, 0.6, 0.1)
    epochs = [
        replace(EPOCHS[0], step=20 * n, epoch=n, val_accuracy=accuracy, val_loss=loss)
        for n, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True), start=1)
    ]
    run = logged(STARTED, *epochs)
    with run.lock():
        app = open_page("train", run=run.id)
    assert figures(app)["Best, epoch 3"] == "80.00%"
    best = figure(app, "loss")["data"][3]
    assert (best["name"], best["x"], best["y"]) == ("best epoch", [3], [0.6])


def test_nothing_is_best_where_nothing_is_held_back_and_no_test_where_there_is_none() -> None:
    epoch = replace(EPOCHS[0], val_loss=None, val_accuracy=None)
    run = logged(replace(STARTED, val_count=0, test_count=0), epoch)
    with run.lock():
        app = open_page("train", run=run.id)
    assert figures(app)["Best epoch"] == figures(app)["Test accuracy"] == "none"
    assert [trace["name"] for trace in figure(app, "loss")["data"]] == ["training, running", "training"]


def test_evaluations_in_the_midst_of_training_are_curves_of_their_own() -> None:
    evaluations = [Evaluated(10, "test", 0.9, 0.5), Evaluated(20, "test", 0.8, 0.6), Evaluated(30, "val", 0.7, 0.65)]
    run = logged(STARTED, *EPOCHS[:1], *evaluations)
    with run.lock():
        app = open_page("train", run=run.id)
    by_name = {trace["name"]: trace for trace in figure(app, "loss")["data"]}
    assert (by_name["test, by step"]["x"], by_name["test, by step"]["y"]) == ([0.5, 1], [0.9, 0.8])
    assert (by_name["validation, by step"]["x"], by_name["validation, by step"]["y"]) == ([1.5], [0.7])
    assert figure(app, "accuracy")["data"][-2]["y"] == pytest.approx([50, 60])


@pytest.mark.slow
def test_a_long_log_is_thinned_for_the_browser_and_keeps_its_ends() -> None:
    steps = [replace(STEP, step=n, epoch=1, train_loss=1 / n) for n in range(1, 12_346)]
    run = logged(replace(STARTED, steps_per_epoch=100_000, epochs=1), *steps)
    with run.lock():
        app = open_page("train", run=run.id)
    for drawn in (figure(app, "loss")["data"][0]["x"], figure(app, "pace")["data"][0]["x"]):
        assert 250 < len(drawn) <= 500
    steps_drawn = figure(app, "learning_rate")["data"][0]["x"]
    assert (steps_drawn[0], steps_drawn[-1]) == (1, 12_345)
    assert figure(app, "loss")["data"][0]["y"][-1] == pytest.approx(1 / 12_345)


@pytest.mark.parametrize(
    ("count", "expected"), [(0, 0), (1, 1), (499, 499), (500, 251), (998, 500), (999, 251), (100_000, 392)]
)
def test_items_are_thinned_by_halving_and_the_last_is_kept(count: int, expected: int) -> None:
    kept = thinned(range(count))
    assert len(kept) == expected <= 500
    assert kept[:1] == list(range(count))[:1]
    assert kept[-1:] == list(range(count))[-1:]
    assert len(set(np.diff(kept[:-1]))) <= 1


def test_a_growing_curve_keeps_the_points_that_it_has() -> None:
    before, after = thinned(range(5000)), thinned(range(5001))
    assert before[:-1] == after[: len(before) - 1]


@pytest.mark.slow
def test_charts_reach_to_the_end_of_the_run_once_it_is_half_made() -> None:
    reaches = []
    for step in (10, 30, 60, 190):
        run = logged(STARTED, replace(STEP, step=step))
        with run.lock():
            reaches.append(
                figure(open_page("train", run=run.id), "learning_rate")["layout"]["xaxis"]["range"][1] / 1.03
            )
    assert reaches == pytest.approx([25, 50, 100, 200])


def test_a_chart_is_saved_under_the_name_of_its_run() -> None:
    run = logged(STARTED, STEP)
    with run.lock():
        app = open_page("train", run=run.id)
    names = {}
    for chart in app.main.get("plotly_chart"):
        config = json.loads(chart.proto.config)
        assert config["displayModeBar"] is True
        assert config["toImageButtonOptions"]["scale"] == 2
        names[chart.key] = config["toImageButtonOptions"]["filename"]
    assert names == {
        "loss": f"{run.id}-loss",
        "accuracy": f"{run.id}-accuracy",
        "learning_rate": f"{run.id}-learning-rate",
        "pace": f"{run.id}-pace",
    }


def test_the_history_is_a_csv_with_a_row_for_each_record(finished: Run) -> None:
    history = finished.history()
    rows = list(csv.DictReader(history_csv(history).splitlines()))
    assert [row["record"] for row in rows].count("step") == len(history.steps)
    epochs = [row for row in rows if row["record"] == "epoch"]
    assert [float(row["val_accuracy"]) for row in epochs] == [epoch.val_accuracy for epoch in history.epochs]
    app = open_page("train", run=finished.id)
    assert "History as CSV" in [each.proto.label for each in app.get("download_button")]


def test_before_its_first_figures_a_run_has_the_room_that_they_take() -> None:
    run = logged(STARTED)
    with run.lock():
        app = open_page("train", run=run.id)
    assert set(figures(app).values()) == {"..."}
    assert [chart.key for chart in app.main.get("plotly_chart")] == ["loss", "accuracy", "learning_rate", "pace"]


@pytest.mark.slow
def test_what_a_run_logs_is_taken_in() -> None:
    run = logged(STARTED)
    with run.lock():
        app = open_page("train", run=run.id)
        with run.log.open("a") as log:
            log.write(to_line(STEP))
        assert "step 50 of 200" in words(show(app))
        with run.log.open("a") as log:
            log.write(to_line(Finished(*ENDED)))
    assert f"**{run.id}** · finished" in words(show(app))
    assert not app.get("progress")


def test_a_run_is_stopped() -> None:
    run = logged(STARTED, STEP)
    with run.lock():
        app = click(open_page("train", run=run.id), "Stop")
        assert run.stop_file.exists()
        assert button(app, "Stopping").disabled
        assert app.get("progress")[0].text.startswith("Stopping: Epoch 1 of 10")


def test_other_runs_that_go_on_are_linked(finished: Run) -> None:
    running, queued = logged(STARTED, STEP), logged(Queued("cpu"))
    with running.lock(), queued.lock():
        app = open_page("train", run=finished.id)
    shown = links(app)
    assert shown[f"Also going on: {running.id} (running)"] == ("train", {"run": running.id})
    assert shown[f"Also going on: {queued.id} (queued)"] == ("train", {"run": queued.id})
    assert f"**{finished.id}** · finished" in words(app)


def test_without_a_run_that_goes_on_there_is_only_the_form(finished: Run) -> None:
    app = open_page("train")
    assert finished.id not in words(app)
    assert app.query_params == {}


# A run that has ended


def test_a_finished_run_is_summed_up(finished: Run) -> None:
    app = open_page("train", run=finished.id)
    history = finished.history()
    best = max(epoch.val_accuracy for epoch in history.epochs)
    assert figures(app)["Test accuracy"] == f"{history.ended.test_accuracy:.2%}"
    assert f"{best:.2%}" in {value for label, value in figures(app).items() if label.startswith("Best, epoch ")}
    assert f"of training, 2 of 2 epochs finished. Kept: {history.ended.kept}." in words(app)
    assert links(app) == {
        "Evaluate it": ("evaluate", {"run": finished.id}),
        "See its mistakes": ("gallery", {"run": finished.id}),
        "Classify a picture": ("classify", {"run": finished.id}),
    }
    assert not {"Stop", "Resume"} & set(buttons(app))
    assert "Train further" in buttons(app)


@pytest.mark.slow
@pytest.mark.parametrize(("then", "page"), [("gallery", "Gallery"), ("evaluate", "Evaluate"), ("nope", "Gallery")])
def test_whoever_has_watched_a_run_end_is_taken_on(finished: Run, then: str, page: str) -> None:
    log = finished.log.read_bytes()
    cut_log(finished, "evaluating")
    with finished.lock():
        app = open_page("train", run=finished.id, then=then)
        assert title(app) == "Train"
        finished.log.write_bytes(log)
    assert title(show(app)) == page
    assert app.query_params == {"run": finished.id}
    assert title(go_to(app, "train", run=finished.id, then=then)) == "Train", "the way back leads back"


def test_whoever_comes_later_is_not_taken_on(finished: Run) -> None:
    assert title(open_page("train", run=finished.id, then="gallery")) == "Train"


def test_a_stopped_run_is_summed_up_and_can_go_on() -> None:
    run = logged(STARTED, *EPOCHS, STEP, Stopped(*ENDED))
    run.checkpoint.touch()
    run.weights.touch()
    app = open_page("train", run=run.id)
    assert "2 min 5 s of training, 2 of 10 epochs finished. Kept: step 50, within epoch 3." in words(app)
    assert figures(app)["Test accuracy"] == "81.25%"
    assert len(links(app)) == 3
    assert button(app, "Resume")


def published_table(app) -> dict[str, tuple[str, str]]:
    """Our figures and the published ones, by what they are of."""
    (shown,) = app.table
    return {row["Figure"]: (row["This run"], row["Published"]) for row in shown.value.to_dict("records")}


def test_a_published_figure_is_beside_that_of_a_run(finished: Run) -> None:
    finished.write_recipe(find_recipe("mnist-lenet5"))
    app = open_page("train", run=finished.id)
    test_accuracy = f"{finished.history().ended.test_accuracy:.2%}"
    assert published_table(app) == {"Test accuracy": (test_accuracy, "99.05%")}
    assert "Published: LeCun et al. 1998" in words(app)
    (finished.path / "recipe.json").write_text(json.dumps(find_recipe("mnist-lenet5").as_dict() | {"seed": 1}))
    app = open_page("train", run=finished.id)
    assert not app.table
    assert "Published: " not in words(app)


def test_the_time_of_a_run_that_goes_on_is_beside_the_published_one() -> None:
    run = logged(STARTED, *EPOCHS, STEP)
    run.write_recipe(find_recipe("kmnist-lenet"))
    with run.lock():
        shown = published_table(open_page("train", run=run.id))
    assert shown == {
        "Training accuracy": ("90.00%", "99.67%"),
        "Validation loss": ("0.7", "0.0821"),
        "Validation accuracy": ("82.00%", "98.23%"),
        "Test accuracy": ("...", "95.00%"),
        "Training time": ("5 s", "2 min 40 s"),
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_all_published_figures_of_a_recipe_are_shown(name: str) -> None:
    run = logged(STARTED, *EPOCHS, Stopped(*ENDED))
    run.write_recipe(find_recipe(name))
    shown = published_table(open_page("train", run=run.id))
    numbers = [*PUBLISHED[name].items(), *PUBLISHED[name].get("first_epoch", {}).items()]
    assert len(shown) == len([value for _, value in numbers if isinstance(value, float | int)])


def test_a_failed_run_says_why(finished: Run) -> None:
    fail(finished)
    app = open_page("train", run=finished.id)
    assert f"**{finished.id}** · failed" in words(app)
    assert errors(app) == [FAILURE]
    assert links(app) == {}
    assert buttons(app) == ["Resume", *START]
    assert button(app, "Resume").help == "Goes on from the beginning: it has no checkpoint."


def test_a_run_that_died_at_once_says_so(finished: Run) -> None:
    die_at_once(finished)
    finished.output.write_text("Killed: out of memory\n")
    app = open_page("train", run=finished.id)
    (error,) = errors(app)
    assert error.startswith("The process of this run ended before training began without a word of its own.")
    assert error.endswith("The end of its output: Killed: out of memory. Resume it, and it starts from the beginning.")
    assert buttons(app) == ["Resume", *START]


def test_a_run_that_was_stopped_before_it_began_says_so() -> None:
    (error,) = errors(open_page("train", run=logged(Queued("cpu"), Cancelled()).id))
    assert error == "Stopped before its first step, so there is no model. Resume it, and it starts from the beginning."


def test_an_unknown_run_is_told_and_the_one_that_goes_on_shown(finished: Run) -> None:
    other = copy_of(finished, "20000101-000000-digits-quick")
    die_in_training(other)
    with other.lock():
        app = open_page("train", run="nope")
    assert "There is no run 'nope'" in errors(app)[0]
    assert title(app) == "Train"
    assert app.query_params == {"run": other.id}
    assert f"**{other.id}** · running" in words(app)


def test_the_layers_of_the_network_are_listed_once_they_are_asked_for(digits) -> None:
    app = open_page("train")
    assert not app.dataframe
    app.session_state["layers"] = True
    table = show(app).dataframe[0].value
    assert table["Layer"].iloc[0] == "0: convolution 32@3x3"
    assert table["Output"].iloc[0] == "32 x 8 x 8"
    parameters = int(table["Parameters"].sum())
    assert f"{parameters:,} parameters, for 8 x 8 grey images of digits." in words(app)


def test_the_layers_of_a_dataset_that_is_not_here_are_not_known() -> None:
    app = open_page("train")
    app.session_state["layers"] = True
    assert "get the dataset first" in words(show(app))


def test_a_network_that_the_images_are_too_small_for_is_told_before_the_start(digits) -> None:
    app = open_page("train")
    field(app, "digits-quick", "model").select("lenet5")
    app.session_state["layers"] = True
    assert errors(show(app)) == [
        "lenet5 needs images of at least 28 x 28 pixels, but these are 8 x 8. "
        "Choose the model convnet or mlp, which take any size."
    ]
