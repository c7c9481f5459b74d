import gc

import pytest
from processes import wait_until

from engine.base.errors import LoupeError
from engine.recipes.recipe import RECIPES, change
from ui.commands import Command, as_arguments


def ended(*arguments: str) -> Command:
    command = Command(*arguments)
    wait_until(command.has_ended)
    return command


def test_a_command_gives_its_document():
    names = [model["name"] for model in ended("models").result()]
    assert names[0] == "convnet" and "resnet50" in names


def test_a_commands_error_is_its_sentence():
    with pytest.raises(LoupeError, match=r"^There is no recipe 'nope'\. Known recipes: digits-quick, "):
        ended("rehearse", "nope").result()


def test_what_a_command_tells_is_its_latest_line(digits):
    command = ended("rehearse", "digits-quick", "--set", "epochs=1", "--set", "threads=1")
    assert command.last_words() == "training a linear model, to compare with"
    assert [check["name"] for check in command.result()][-1] == "memory"


def test_a_command_that_was_killed_says_so(digits):
    command = Command("rehearse", "digits-quick")
    command.process.kill()
    wait_until(command.has_ended)
    with pytest.raises(LoupeError, match=r"^The work ended with code -9 before it was done \(without a word\)\. "):
        command.result()


def test_a_command_ends_when_it_is_let_go_of(digits):
    command = Command("rehearse", "digits-quick")
    process = command.process
    assert process.poll() is None
    del command
    gc.collect()
    assert process.poll() == -9


def test_a_recipe_is_written_as_the_command_line_takes_it():
    assert as_arguments(RECIPES["digits-quick"]) == ["digits-quick"]
    changed = change(RECIPES["mnist-lenet5"], {"epochs": 2, "augment": "shift=2", "weights": "/a b.pth"})
    assert as_arguments(changed) == [
        *("mnist-lenet5", "--set", "weights=/a b.pth", "--set", "epochs=2", "--set", "augment=shift=2")
    ]
