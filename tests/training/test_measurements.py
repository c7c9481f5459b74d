from pathlib import Path

import pytest

from engine.base.errors import LoupeError
from engine.training.measurements import (
    forget_measurements,
    keep_measurement,
    key_of,
    measurements_file,
    measurements_here,
    read_measurements,
)

WAY = {"threads": 1, "precision": "float32", "convolutions": "onednn"}


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def test_what_is_forgotten_is_that_of_this_machine() -> None:
    keep_measurement(key_of("convnet"), WAY)
    keep_measurement(key_of("mlp"), WAY)
    keep_measurement("another machine, convnet", WAY)
    assert measurements_here() == [key_of("convnet"), key_of("mlp")]
    assert forget_measurements() == 2
    assert read_measurements() == {"another machine, convnet": WAY}
    assert forget_measurements() == 0


def test_where_nothing_was_measured_nothing_is_written(data_folder: Path) -> None:
    assert forget_measurements() == 0
    assert list(data_folder.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_as_good_as_an_empty_one(content: bytes) -> None:
    measurements_file().write_bytes(content)
    assert read_measurements() == {}
    assert forget_measurements() == 0
    keep_measurement("a", WAY)
    assert read_measurements() == {"a": WAY}


def test_a_folder_that_cannot_be_written_is_told(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_measurement(key_of("convnet"), WAY)

    def refusing(path: Path, text: str) -> None:  # as a file system that is read-only
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", refusing)
    with pytest.raises(LoupeError, match="cannot be written"):
        forget_measurements()
    assert measurements_here() == [key_of("convnet")]
