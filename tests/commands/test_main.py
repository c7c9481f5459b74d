"""What all commands have in common: their arguments, where they write what, and their exit codes."""

from pathlib import Path

import pytest
from command_line import assert_refused, call, command

from engine.recipes.recipe import RECIPES

COMMANDS = [
    *(
        "datasets",
        "get",
        "import",
        "check",
        "recipes",
        "models",
        "train",
        "rehearse",
        "find-rate",
        "resume",
        "runs",
        "measure-again",
    ),
    *("evaluate", "compare", "report", "archive", "restore", "predict", "export"),
]
BAD_INPUT = [
    ((), "the following arguments are required: COMMAND"),
    (("nonsense",), "invalid choice: 'nonsense'"),
    (("runs", "--nonsense"), "unrecognized arguments: --nonsense"),
    (("train",), "the following arguments are required: RECIPE"),
    (("train", "nope"), "There is no recipe 'nope'. Known recipes: digits-quick"),
    (("train", "digits-quick", "--dataset", "nope"), "There is no dataset 'nope'. Known datasets: digits"),
    (("train", "digits-quick", "--set"), "argument --set: expected one argument"),
    (("train", "digits-quick", "--set", "epochs"), "--set was given 'epochs', but needs FIELD=VALUE"),
    (("train", "digits-quick", "--set", "wings=2"), "There is no recipe field 'wings'. Known fields: dataset"),
    (("train", "digits-quick", "--set", "epochs=many"), "epochs is 'many', but must be a whole number"),
    (("train", "digits-quick", "--set", "epochs=0"), "epochs is 0, but must be between 1 and 10000"),
    (("train", "digits-quick", "--set", "epochs="), "epochs is '', but must be a whole number"),
    (("train", "digits-quick", "--set", "keep=first"), "keep is 'first', but must be one of last and best"),
    (("train", "digits-quick", "--set", "learning_rate=nan"), "learning_rate is 'nan', but must be a number"),
    (("get",), "the following arguments are required: NAME"),
    (("get", "nope"), "There is no dataset 'nope'"),
    (("evaluate", "nope"), "There is no run 'nope'"),
    (("evaluate", "../runs"), "There is no run '../runs'"),
    (("compare", "nope"), "the following arguments are required: RUN"),
    (("compare", "nope", "neither"), "There is no run 'nope'"),
    (("report", "nope"), "the following arguments are required: FILE"),
    (("report", "nope", "report.html"), "There is no run 'nope'"),
    (("report", "nope", "report.pdf"), "only a file whose name ends in .html is written or replaced"),
    (("resume", "nope"), "There is no run 'nope'"),
    (("resume", "nope", "--epochs", "many"), "argument --epochs: invalid int value: 'many'"),
    (("predict", "nope", "picture.png"), "There is no run 'nope'"),
    (("predict", "nope"), "the following arguments are required: PATH"),
    (("models", "--dataset", "nope"), "There is no dataset 'nope'"),
    (("models", "resnet18"), "unrecognized arguments: resnet18"),
    (("rehearse",), "the following arguments are required: RECIPE"),
    (("rehearse", "nope"), "There is no recipe 'nope'"),
    (("rehearse", "digits-quick", "--dataset", "nope"), "There is no dataset 'nope'"),
    (
        ("rehearse", "digits-quick", "--set", "model=resnet"),
        "There is no model 'resnet'. The nearest in name: resnet50",
    ),
    (("rehearse", "digits-quick", "--set", "weights=imagenet"), "there are no such weights for convnet"),
    (("find-rate",), "the following arguments are required: RECIPE"),
    (("find-rate", "nope"), "There is no recipe 'nope'"),
    (("find-rate", "folder-quick"), "The recipe folder-quick is for images of your own. Import a folder"),
    (("find-rate", "digits-quick", "--set", "freeze=backbone"), "new weights that are frozen would never learn"),
    (("find-rate", "digits-quick", "--set", "epochs"), "--set was given 'epochs', but needs FIELD=VALUE"),
]


@pytest.mark.parametrize(("arguments", "reason"), BAD_INPUT, ids=[" ".join(arguments) for arguments, _ in BAD_INPUT])
def test_bad_input_is_refused_in_one_line(arguments: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    assert_refused(call(*arguments, *(["--json"] if arguments else [])), reason)
    assert list(tmp_path.iterdir()) == [], "something was made of bad input"


@pytest.mark.slow
def test_help_lists_the_commands_and_each_has_its_own() -> None:
    answer = call("--help")
    assert (answer.code, answer.stderr) == (0, "")
    listed = [line.split()[0] for line in answer.stdout.splitlines() if line[:4] == " " * 4 and line[4:5].strip()]
    assert listed == COMMANDS
    for name in COMMANDS:
        help_of_one = call(name, "--help")
        assert (help_of_one.code, help_of_one.stderr) == (0, "")
        assert help_of_one.stdout.startswith(f"usage: python -m engine {name} ")
        assert "--json" in help_of_one.stdout


@pytest.mark.processes
def test_a_process_ends_with_the_code_and_writes_json_alone_on_stdout(tmp_path: Path) -> None:
    for arguments in (("--help",), ("recipes", "--help")):
        answer = command(*arguments)
        assert (answer.code, answer.stderr) == (0, "")
        assert answer.stdout.startswith("usage: python -m engine ")
    answer = command("recipes", "--json")
    assert (answer.code, answer.stderr) == (0, "")
    assert [recipe["name"] for recipe in answer.document] == list(RECIPES)
    assert_refused(command("train", "nope", "--json"), "There is no recipe 'nope'. Known recipes: digits-quick")
    assert_refused(command(), "the following arguments are required: COMMAND")
    assert list(tmp_path.iterdir()) == []
