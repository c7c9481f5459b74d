import os
from pathlib import Path

import pytest

from engine.base.paths import clear_unfinished_files, replacing_file


def killed_while_replacing(path: Path) -> None:
    """Write a file in a process that ends before the file takes its place."""
    child = os.fork()
    if not child:
        with replacing_file(path) as beside:
            beside.write_text("half of it")
            os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_only_what_a_killed_process_was_about_to_put_into_place_is_cleared(tmp_path: Path) -> None:
    for name in ("recipe.json", "two words\n.txt"):
        killed_while_replacing(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 2
    others = {".recipe.json.swp", ".recipe.json.4711", ".4711-12", "recipe.json.4711-12", ".ipynb_checkpoints"}
    for name in others - {".ipynb_checkpoints"}:
        (tmp_path / name).touch()
    for folder in (".ipynb_checkpoints", ".folder.4711-12"):
        (tmp_path / folder).mkdir()
    clear_unfinished_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == others | {".folder.4711-12"}


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text("old")
    with pytest.raises(KeyError), replacing_file(path) as beside:
        beside.write_text("ne")
        raise KeyError
    assert path.read_text() == "old"
    with replacing_file(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
