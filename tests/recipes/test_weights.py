from pathlib import Path

import pytest

from engine.recipes.weights import (
    WEIGHT_FILES,
    ImageNetWeights,
    NewWeights,
    RunWeights,
    StartingWeights,
    WeightsFile,
    parse_weights,
)

RUNS = {"20260101-120000-digits-quick", "mine.pt", "/runs/mine.pt", "none", "imagenet"}


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("none", NewWeights()),
        ("imagenet", ImageNetWeights()),
        ("20260101-120000-digits-quick", RunWeights("20260101-120000-digits-quick")),
        ("mine.pt", RunWeights("mine.pt")),
        ("/runs/mine.pt", RunWeights("/runs/mine.pt")),
        ("/elsewhere/mine.pt", WeightsFile(Path("/elsewhere/mine.pt"))),
        ("./mine.pt", WeightsFile(Path("mine.pt"))),
        ("theirs.pt", WeightsFile(Path("theirs.pt"))),
        ("folder/theirs", WeightsFile(Path("folder/theirs"))),
        ("~nobody-of-this-name/a.pth", WeightsFile(Path("~nobody-of-this-name/a.pth"))),
        # None of these is there, but they are meant as runs.
        ("ImageNet", RunWeights("ImageNet")),
        ("a.pth.txt", RunWeights("a.pth.txt")),
        ("pth", RunWeights("pth")),
        ("", RunWeights("")),
    ],
)
def test_a_text_means_one_thing(text: str, meaning: StartingWeights) -> None:
    assert parse_weights(text, RUNS.__contains__) == meaning


@pytest.mark.parametrize("ending", WEIGHT_FILES)
def test_a_file_is_told_by_its_ending(ending: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_weights(f"a{ending}", RUNS.__contains__) == WeightsFile(Path(f"a{ending}"))
    assert parse_weights(f"~/a{ending}", RUNS.__contains__) == WeightsFile(tmp_path / f"a{ending}")
