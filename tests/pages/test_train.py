import json

import pytest
from damage import FAILURE, copy_of, cut_log, die_at_once, die_in_training, fail
from screen import button, buttons, click, errors, figure, go_to, links, open_page, show, title, words

from engine.catalogue import CATALOGUE
from engine.recipes import FIELDS, RECIPES, TYPES, Recipe, change, find_recipe
from engine.records import (
    Cancelled,
    Epoch,
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
from engine.runs import ACTIVE, Run, create_run, list_runs, open_run

STARTED = Started("digits", "abc", list("01"), 1280, 100, 2000, 20, 10, 1000, "cpu", 2, "float32", "2.0")
STEP = Step(50, 3, 0.51234, 0.9125, 0.01, 12345.6, 5.0)
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
        if about.name != "name":
            assert field(app, name, about.name).value == getattr(RECIPES[name], about.name)
    assert not app.error


def test_every_field_says_its_unit_and_what_it_is() -> None:
    app = open_page("train")
    for about in FIELDS.values():
        if about.name == "name":
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
    assert "One hidden layer of 128 units over all pixels; any size." in words(show(app))


# Starting and resuming


def test_a_training_is_started_as_it_was_set(launches) -> None:
    app = open_page("train")
    changes = {"epochs": 1000, "batch_size": 32, "learning_rate": 0.003, "device": "cpu", "shuffle": False}
    for name, value in changes.items():
        field(app, "digits-quick", name).set_value(value)
    click(app, "Start training")
    (run,) = list_runs()
    written = {name: value for name, value in run.recipe.as_dict().items() if name != "precision"}
    expected = change(find_recipe("digits-quick"), changes).as_dict()
    assert written == {name: value for name, value in expected.items() if name != "precision"}
    assert run.status() in ACTIVE
    assert app.query_params == {"run": run.id, "dataset": run.recipe.dataset}
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
        ([Preparing(2_500_000, 10_000_000)], "starting", 25, "Getting the dataset: 2.5 of 10.0 MB"),
        ([Queued("cpu")], "queued", 0, "Queued: another run has the device. This one starts by itself when that ends."),
        ([STARTED], "running", 0, "Training on 1,280 images: first of 200 steps"),
        # 150 steps are left, and 50 took 5 s.
        ([STARTED, *EPOCHS, STEP], "running", 25, "Epoch 3 of 10, step 50 of 200: about 15 s of training left"),
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
        "Pace": "12,346/s",
        "Validation, best": "82.00%",
        "Test accuracy": "...",
    }
    running, epochs, validation = figure(app, "accuracy")["data"]
    assert (running["x"], running["y"]) == ([2.5], [91.25])
    assert (epochs["x"], epochs["y"]) == ([1, 2], [90, 90])
    assert validation["y"] == pytest.approx([81, 82])


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
    assert figures(app)["Validation, best"] == f"{best:.2%}"
    assert f"of training, 2 of 2 epochs finished. Kept: {history.ended.kept}." in words(app)
    assert links(app) == {
        "Evaluate it": ("evaluate", {"run": finished.id}),
        "See its mistakes": ("gallery", {"run": finished.id}),
        "Classify a picture": ("classify", {"run": finished.id}),
    }
    assert not {"Stop", "Resume"} & set(buttons(app))


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


def test_a_published_figure_is_beside_that_of_a_run(finished: Run) -> None:
    finished.write_recipe(find_recipe("mnist-lenet5"))
    assert "Published: 99.05% test accuracy (LeCun et al. 1998" in words(open_page("train", run=finished.id))
    (finished.path / "recipe.json").write_text(json.dumps(find_recipe("mnist-lenet5").as_dict() | {"seed": 1}))
    assert "Published: " not in words(open_page("train", run=finished.id))


def test_a_failed_run_says_why(finished: Run) -> None:
    fail(finished)
    app = open_page("train", run=finished.id)
    assert f"**{finished.id}** · failed" in words(app)
    assert errors(app) == [FAILURE]
    assert links(app) == {}
    assert buttons(app) == ["Start training"]


def test_a_run_that_died_at_once_says_so(finished: Run) -> None:
    die_at_once(finished)
    finished.output.write_text("Killed: out of memory\n")
    app = open_page("train", run=finished.id)
    (error,) = errors(app)
    assert error.startswith("The process of this run ended before training began without a word of its own.")
    assert error.endswith("The end of its output: Killed: out of memory. Start it again.")
    assert buttons(app) == ["Start training"]


def test_a_run_that_was_stopped_before_it_began_says_so() -> None:
    (error,) = errors(open_page("train", run=logged(Queued("cpu"), Cancelled()).id))
    assert error == "Stopped before its first step, so there is no model. Start it again from its recipe."


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
