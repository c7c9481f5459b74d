import itertools
import os
import struct
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from picture_files import (
    SIZE,
    assert_sentences,
    change_entry,
    encode,
    noise,
    pack,
    png,
    png_of_size,
    pngs,
    put,
    understand,
    write,
)
from PIL import Image
from processes import wait_until
from trained_runs import train_run

from engine.base.machine import cores
from engine.data.dataset import Dataset
from engine.evaluation.predictions import load_predictions
from engine.images.pictures import open_picture
from engine.inference.batch import MOST_AT_ONCE, Answer, Item, Pictures, classify_all, true_class
from engine.inference.classifier import Classifier, gather, load_classifier

COLOURS = ("red", "green", "blue")


@pytest.fixture
def classifier(colours: Dataset) -> Classifier:
    return load_classifier(train_run(colours, model="convnet", learning_rate=0.01)[0])


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the one that we are in."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def answers_for(classifier: Classifier, *paths: str | Path) -> list[Answer]:
    return list(classify_all(classifier, Pictures(map(str, paths))))


def names_of(*paths: str | Path) -> list[str]:
    return [item.name for item in Pictures(map(str, paths))]


def plain_answer(classifier: Classifier, content: bytes) -> list[float]:
    """The five highest probabilities, or all, of a picture opened and classified by itself."""
    channels = classifier.preprocessing.image_shape[2]
    return sorted(classifier.classify(open_picture(content, channels).pixels)[0].tolist(), reverse=True)[:5]


def assert_as_plain(classifier: Classifier, answers: list[Answer], contents: list[bytes]) -> None:
    for answer, content in zip(answers, contents, strict=True):
        confidences = [best["confidence"] for best in answer.top]
        np.testing.assert_allclose(confidences, plain_answer(classifier, content), atol=1e-6)
        assert (answer.error, answer.as_document()["label"]) == (None, answer.top[0]["label"])


# Answers


@pytest.mark.slow
def test_stored_images_are_answered_as_the_evaluation_does(colours: Dataset, pictures: Path) -> None:
    run, _ = train_run(colours, model="convnet")
    classifier = load_classifier(run)
    images = colours.splits["test"].images
    write(pictures, {f"{n:02}.png": encode(Image.fromarray(image)) for n, image in enumerate(images)})
    list(gather(classifier, run, colours, "test"))
    expected = load_predictions(run.predictions("test")).probabilities
    answers = answers_for(classifier, pictures)
    assert [Path(answer.file).name for answer in answers] == [f"{n:02}.png" for n in range(30)]
    for answer, image, probabilities in zip(answers, images, expected, strict=True):
        told = {best["label"]: best["confidence"] for best in answer.top}
        np.testing.assert_allclose([told[name] for name in COLOURS], probabilities, atol=1e-6)
        np.testing.assert_array_equal(answer.pixels, image)
        np.testing.assert_array_equal(answer.seen, image)
        assert (answer.size, answer.notes) == ((10, 12), ())


def test_answers_come_in_order_however_long_each_takes(classifier: Classifier, pictures: Path) -> None:
    sides = [1000, 3, 40, 800, 8, 1, 500, 12, 12, 600] * 2
    files = {f"{n:02}.png": png(n, side, side) for n, side in enumerate(sides)}
    write(pictures, files)
    answers = answers_for(classifier, pictures)
    assert [answer.file for answer in answers] == [f"{pictures}/{name}" for name in files]
    assert_as_plain(classifier, answers, list(files.values()))


def test_files_folders_zips_and_globs_are_answered_alike(classifier: Classifier, pictures: Path) -> None:
    files = pngs(["b.png", "a.jpg", "deep/er/c.gif"], height=20, width=30)
    write(pictures / "folder", files | {"notes.txt": b"no picture", ".hidden.png": png()})
    pack(pictures / "packed.zip", files | {"more.zip": b"PK", "__MACOSX/b.png": b"", "readme": b""})
    (pictures / "packed.zip").rename(pictures / "no suffix")
    write(pictures, {"alone": png(9)})
    in_order = [files[name] for name in ("a.jpg", "b.png", "deep/er/c.gif")]
    given = Pictures(["folder", "no suffix", "alone", "folder/*.png"])
    answers = list(classify_all(classifier, given))
    assert [answer.file for answer in answers] == [
        *("folder/a.jpg", "folder/b.png", "folder/deep/er/c.gif"),
        *("no suffix/a.jpg", "no suffix/b.png", "no suffix/deep/er/c.gif"),
        *("alone", "folder/b.png"),
    ]
    assert given.passed_over == 3  # notes.txt, more.zip and readme
    assert_as_plain(classifier, answers, [*in_order, *in_order, png(9), files["b.png"]])


def test_of_a_folder_the_files_are_pictures_that_are_so_for_an_import(classifier: Classifier, pictures: Path) -> None:
    write(pictures, {"1.jfif": png(1), "2": png(2), "3.nef": b"II*\0", "4.what": b"text"})
    given = Pictures(["."])
    answers = list(classify_all(classifier, given))
    assert [answer.file for answer in answers] == ["./1.jfif", "./2", "./3.nef"]
    assert [answer.error for answer in answers] == [
        *(None, None),
        "This is a camera raw picture, which is not read. Save it as PNG or JPEG.",
    ]
    assert given.passed_over == 1


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1), (1, 5000)], ids=str)
def test_a_picture_one_pixel_wide_is_answered(classifier: Classifier, pictures: Path, size: tuple[int, int]) -> None:
    content = png(0, *size)
    write(pictures, {"thin.png": content})
    assert_as_plain(classifier, answers_for(classifier, "thin.png"), [content])


def test_of_an_animation_the_first_frame_is_answered_and_said_so(classifier: Classifier, pictures: Path) -> None:
    red, *others = (Image.new("RGB", (20, 24), colour) for colour in ("red", "green", "blue"))
    red.save(pictures / "film.gif", save_all=True, append_images=others)
    (answer,) = answers_for(classifier, "film.gif")
    assert (answer.as_document()["label"], answer.notes) == ("red", ("An animation: its first frame.",))
    assert answer.as_document()["notes"] == ["An animation: its first frame."]


def test_ink_is_read_unless_it_is_not_to_be(digits: Dataset, pictures: Path) -> None:
    classifier = load_classifier(train_run(digits, epochs=3)[0])
    strokes = digits.splits["test"].images[0].repeat(12, axis=0).repeat(12, axis=1)[..., 0]
    page = np.pad(255 - strokes, 40, constant_values=255)
    write(pictures, {"page.png": encode(Image.fromarray(page))})
    (read,) = answers_for(classifier, "page.png")
    (as_it_is,) = classify_all(classifier, Pictures(["page.png"]), normalize=False)
    assert read.notes and not as_it_is.notes
    normal, note = classifier.normalize(page[..., np.newaxis])
    assert read.notes == (note,)
    np.testing.assert_array_equal(read.seen, normal)
    np.testing.assert_array_equal(as_it_is.seen, classifier.see(page[..., np.newaxis]))
    np.testing.assert_array_equal(read.pixels, page[..., np.newaxis])


def test_a_row_has_a_small_picture_and_a_bad_one_has_none(classifier: Classifier, pictures: Path) -> None:
    write(pictures, {"blue_1.png": encode(Image.new("RGB", (300, 200), "blue")), "bad.png": b"no"})
    bad, good = (answer.as_row() for answer in answers_for(classifier, pictures))
    assert bad.keys() == {"file", "error", "size"}
    assert good.keys() == {"file", "label", "confidence", "top", "true", "size", "thumbnail"}
    assert (good["label"], good["true"], good["size"]) == ("blue", "blue", [300, 200])
    assert good["thumbnail"].startswith("data:image/png;base64,")
    assert len(good["thumbnail"]) < 1000


# Threads


def threads_of_others(before: set[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]


@pytest.mark.slow
def test_only_a_few_pictures_are_open_at_once_and_closing_ends_all_threads(classifier: Classifier) -> None:
    before, content, handed = set(threading.enumerate()), png(), itertools.count()

    def without_end() -> Iterator[Item]:
        for number in handed:
            yield Item(f"{number}.png", lambda: content)

    answers = classify_all(classifier, without_end())
    ahead = []
    for number, answer in enumerate(itertools.islice(answers, 60)):
        assert answer.file == f"{number}.png"
        handed_so_far = int(repr(handed)[len("count(") : -1])
        ahead.append(handed_so_far - number)
    assert threads_of_others(before)
    assert max(ahead) <= min(cores(), MOST_AT_ONCE) + 4
    answers.close()
    wait_until(lambda: not threads_of_others(before))


def test_an_answer_does_not_wait_for_the_next_picture_to_be_named(classifier: Classifier) -> None:
    before, named = set(threading.enumerate()), Event()

    def typed() -> Iterator[Item]:
        yield Item("first.png", png)
        named.wait()
        yield Item("second.png", png)

    answers = classify_all(classifier, typed())
    assert next(answers).file == "first.png"
    answers.close()  # nor does the end
    named.set()
    wait_until(lambda: not threads_of_others(before))


def test_what_goes_wrong_with_the_list_is_told_to_whoever_asked(classifier: Classifier) -> None:
    def broken() -> Iterator[Item]:
        yield Item("first.png", png)
        raise OSError("the list is gone")

    answers = classify_all(classifier, broken())
    assert next(answers).file == "first.png"
    with pytest.raises(OSError, match="the list is gone"):
        next(answers)


# Which files


def test_globs_find_what_they_match_once(pictures: Path) -> None:
    write(pictures, pngs(["1.png", "sub/2.png", "sub/deep/3.png", "sub-b/4.jpg", "x[1].png", "x1.png"]))
    everything = ["1.png", "sub-b/4.jpg", "sub/2.png", "sub/deep/3.png", "x1.png", "x[1].png"]
    assert names_of("*.png") == ["1.png", "x1.png", "x[1].png"]
    assert names_of("**/*.png") == ["1.png", "sub/2.png", "sub/deep/3.png", "x1.png", "x[1].png"]
    assert sorted(names_of("**")) == sorted(names_of("*")) == sorted(names_of("**/*")) == everything
    assert names_of(f"{pictures}/sub*/**") == [
        f"{pictures}/sub-b/4.jpg",
        f"{pictures}/sub/2.png",
        f"{pictures}/sub/deep/3.png",
    ]
    assert names_of("?.png", "[s]ub/2.png") == ["1.png", "sub/2.png"]
    assert names_of("x[1].png") == ["x[1].png"]  # which is there by that very name
    (pictures / "x[1].png").unlink()
    assert names_of("x[1].png") == ["x1.png"]


def test_the_home_folder_may_be_written_as_a_tilde(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(pictures, pngs(["cat.png", "dog.png"]))
    monkeypatch.setenv("HOME", str(pictures))
    assert names_of("~") == ["~/cat.png", "~/dog.png"]
    assert names_of("~/d*.png") == [f"{pictures}/dog.png"]
    assert names_of("~/cat.png") == ["~/cat.png"]


def test_a_slash_at_the_end_of_a_folder_is_not_doubled(pictures: Path) -> None:
    write(pictures, pngs(["sub/1.png"]))
    assert names_of("sub/", "sub//", "./sub") == ["sub/1.png", "sub/1.png", "./sub/1.png"]


@pytest.mark.parametrize(
    "name",
    [
        "кошка 猫 🐈.png",
        "<b>bold & _italic_ $x$.png",
        "two\nlines\r.png",
        "\x1b[31mred\x07.png",
        "\udcff\udc80.png",  # bytes that are no UTF-8
        "-rf.png",
        "~.png",
        " .png",
        "a" * 251 + ".png",
        "\\..\\x.png",
    ],
    ids=ascii,
)
def test_any_name_is_answered_as_it_is(classifier: Classifier, pictures: Path, name: str) -> None:
    (pictures / name).write_bytes(png())
    by_name, in_folder = answers_for(classifier, name, pictures)
    assert (by_name.file, in_folder.file) == (name, f"{pictures}/{name}")
    assert_as_plain(classifier, [by_name, in_folder], [png(), png()])


def test_pictures_are_known_by_their_content_not_their_suffix(classifier: Classifier, pictures: Path) -> None:
    jpeg = encode(Image.fromarray(noise(3, 20, 20)), "JPEG")
    write(pictures, {"really a jpeg.png": jpeg, "none": jpeg, "text.txt": jpeg})
    answers = answers_for(classifier, "really a jpeg.png", "none", "text.txt")
    assert_as_plain(classifier, answers, [jpeg] * 3)


def test_links_are_followed_and_those_that_lead_nowhere_are_said(classifier: Classifier, pictures: Path) -> None:
    write(pictures, {"there.png": png(), "sub/in it.png": png()})
    for name, target in {"link": "there.png", "folder": "sub", "lost.png": "nowhere", "self.png": "self.png"}.items():
        (pictures / name).symlink_to(target)
    *good, lost, itself = answers_for(classifier, "link", "folder", "lost.png", "self.png")
    assert [answer.file for answer in good] == ["link", "folder/in it.png"]
    assert not any(answer.error for answer in good)
    assert lost.error == "There is no such file. Check its name and folder."
    assert_sentences(itself.error)
    assert "Too many levels of symbolic links" in itself.error


# What cannot be classified


def assert_refused(answer: Answer, reason: str) -> None:
    assert answer.error is not None
    assert_sentences(answer.error)
    assert reason in answer.error
    assert answer.as_document() == {"file": answer.file, "error": answer.error}


BAD_FILES = {
    "empty.png": (b"", "The file is empty"),
    "text.png": (b"hello, hello", "not a picture that can be read"),
    "short.png": (png(0, 50, 50)[:200], "damaged or cut short"),
    "huge.png": (png_of_size(60_000, 60_000), "at most 178 million are opened"),
    "zip.png": (b"PK\x05\x06" + bytes(18), "not a picture that can be read"),
    "cut.zip": (b"PK\x03\x04 and no end", "is not a zip archive, or it is cut short"),
    "empty.zip": (b"PK\x05\x06" + bytes(18), "There is no picture in it"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_a_row_with_its_reason_and_the_next_is_answered(
    classifier: Classifier, pictures: Path, name: str
) -> None:
    content, reason = BAD_FILES[name]
    write(pictures, {name: content, "good.png": png()})
    bad, good = answers_for(classifier, name, "good.png")
    assert_refused(bad, reason)
    assert (bad.file, good.error) == (name, None)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing.png", "There is no such file"),
        ("missing.zip", "There is no such file"),
        ("missing/1.png", "There is no such file"),
        ("file.png/1.png", "There is no such file"),
        ("", "There is no such file"),
        ("nul\0.png", "There is no such file"),
        ("*nul\0.png", "There is no such file"),
        ("*.jpg", "No file matches this"),
        ("missing/**/*.png", "No file matches this"),
        ("x" * 300 + ".png", "The file cannot be read (File name too long)"),
        ("x/" * 3000, "The file cannot be read (File name too long)"),
        ("~nobody-of-this-name/1.png", "There is no such file"),
        ("folder", "There is no picture in it"),
        ("texts", "There is no picture in it"),
        ("/dev/zero", "This is not a regular file"),
        ("/dev/null", "This is not a regular file"),
        ("pipe", "This is not a regular file"),
        ("pipe.zip", "This is not a regular file"),
        ("pipe.png", "This is not a regular file"),
        ("link to a pipe", "This is not a regular file"),
    ],
    ids=lambda value: ascii(value[:30]),
)
def test_what_is_no_picture_is_a_row_with_its_reason(
    classifier: Classifier, pictures: Path, path: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pictures, {"file.png": png(), "texts/a.txt": b"", "texts/b.zip": b""})
    (pictures / "folder" / "empty").mkdir(parents=True)
    for pipe in ("pipe", "pipe.zip", "pipe.png"):
        os.mkfifo(pictures / pipe)
    (pictures / "link to a pipe").symlink_to("pipe")
    for roots in ("", f"{pictures}{os.pathsep}/dev{os.pathsep}/home{os.pathsep}{Path.home()}"):
        monkeypatch.setenv("LOUPE_IMPORT_ROOTS", roots)
        bad, good = answers_for(classifier, path, "file.png")
        assert bad.file == path
        assert good.error is None
        if not (roots and path.startswith("~")):
            assert_refused(bad, reason)


def test_a_pipe_in_a_folder_is_not_waited_for(classifier: Classifier, pictures: Path) -> None:
    os.mkfifo(pictures / "1.png")
    write(pictures, {"2.png": png()})
    pipe, good = answers_for(classifier, pictures)
    assert_refused(pipe, "not a regular file")
    assert good.error is None


def test_a_file_that_vanishes_meanwhile_is_a_row(classifier: Classifier, pictures: Path) -> None:
    write(pictures, pngs([f"{n}.png" for n in range(40)]))
    answers = classify_all(classifier, Pictures([str(pictures)]))
    first = next(answers)
    (pictures / "9.png").unlink()  # the last in order, far ahead of what is open
    *_, last = answers
    assert first.error is None
    assert last.file == f"{pictures}/9.png"
    assert_refused(last, "The file cannot be opened (No such file or directory)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_a_row(classifier: Classifier, pictures: Path) -> None:
    write(pictures, {"secret.png": png(), "closed/1.png": png(), "good.png": png()})
    (pictures / "secret.png").chmod(0)
    (pictures / "closed").chmod(0)
    try:
        secret, inside, closed, good = answers_for(classifier, "secret.png", "closed/1.png", "closed", "good.png")
    finally:
        (pictures / "closed").chmod(0o700)
    assert_refused(secret, "may not be read")
    assert_refused(inside, "may not be read")
    assert_refused(closed, "cannot be read (Permission denied)")
    assert good.error is None


def test_only_the_allowed_folders_are_read(classifier: Classifier, pictures: Path, monkeypatch) -> None:
    write(pictures, {"in/1.png": png(), "out/2.png": png()})
    pack(pictures / "out" / "packed.zip", {"3.png": png()})
    (pictures / "in" / "link.png").symlink_to(pictures / "out" / "2.png")
    (pictures / "in" / "led").symlink_to(pictures / "out")
    monkeypatch.setenv("LOUPE_IMPORT_ROOTS", str(pictures / "in"))
    good, led, link, *outside = answers_for(
        classifier, "in", "out", "out/2.png", "out/packed.zip", "out/*.png", "in/../out/2.png", "in/link.png"
    )
    assert (good.file, good.error) == ("in/1.png", None)
    assert {led.file, link.file} == {"in/led", "in/link.png"}
    for answer in (led, link):
        assert_refused(answer, "link to outside the folders that may be imported from")
    assert len(outside) == 6
    for answer in outside:
        assert_refused(answer, "outside the folders that may be imported from")


# Archives that do harm


@pytest.mark.slow
def test_an_entry_that_unpacks_to_more_than_it_claims_is_a_row(classifier: Classifier, pictures: Path) -> None:
    path = pack(pictures / "bomb.zip", {"a.png": png(), "bomb.png": bytes(50_000_000), "c.png": png()})
    change_entry(path, "bomb.png", SIZE, 1000)
    first, bomb, last = answers_for(classifier, path)
    assert_refused(bomb, "bomb.png in the zip archive unpacks to more than the 1,000 bytes that it claims")
    assert (first.error, last.error) == (None, None)


def test_an_entry_that_claims_to_be_huge_is_a_row(classifier: Classifier, pictures: Path) -> None:
    path = pack(pictures / "bomb.zip", {"a.png": png(), "big.png": png(), "c.png": png()})
    change_entry(path, "big.png", SIZE, 4_000_000_000)
    first, huge, last = answers_for(classifier, path)
    assert_refused(huge, "It is too large: 4,000,000,000 bytes")
    assert (first.error, last.error) == (None, None)


def test_an_archive_of_overlapping_entries_is_one_row_and_the_next_path_is_answered(
    classifier: Classifier, pictures: Path
) -> None:
    path = pack(pictures / "bomb.zip", {"a.png": png(), "b.png": png(1)})
    change_entry(path, "b.png", (42, "<L"), 0)  # where it begins: where the first does
    write(pictures, {"good.png": png()})
    bomb, good = answers_for(classifier, "bomb.zip", "good.png")
    assert (bomb.file, good.error) == ("bomb.zip", None)
    assert_refused(bomb, "claims more compressed bytes than it has")


def test_archives_within_archives_are_passed_over(pictures: Path) -> None:
    inner = pack(pictures / "inner.zip", {"1.png": png()}).read_bytes()
    pack(pictures / "outer.zip", {"inner.zip": inner, "2.png": png(), "photo.png.zip": inner})
    given = Pictures(["outer.zip"])
    assert [item.name for item in given] == ["outer.zip/2.png"]
    assert given.passed_over == 2


def test_names_that_lead_out_of_an_archive_refuse_it(classifier: Classifier, pictures: Path) -> None:
    pack(pictures / "out.zip", {"a.png": png(), "../../b.png": png()})
    (answer,) = answers_for(classifier, "out.zip")
    assert_refused(answer, "would unpack outside its folder")


def test_an_encrypted_archive_is_a_row(classifier: Classifier, pictures: Path) -> None:
    path = pack(pictures / "secret.zip", {"a.png": png()})
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, content.rindex(b"PK\x01\x02") + 8, 1)
    path.write_bytes(content)
    (answer,) = answers_for(classifier, path)
    assert_refused(answer, "is encrypted")


@pytest.mark.slow
def test_ten_thousand_files_in_a_zip_are_listed_in_order(pictures: Path) -> None:
    with zipfile.ZipFile(pictures / "many.zip", "w") as archive:
        for number in reversed(range(10_000)):
            archive.writestr(f"{number % 10}/{number:05}.png", b"")
    names = names_of("many.zip")
    assert len(names) == 10_000
    assert names == sorted(names)


# What a file's name says it is


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat/1.png", "cat"),
        ("photos/Cat/1.png", "cat"),
        ("cat/deep/1.png", "cat"),
        ("cat_1.png", "cat"),
        ("CAT-1.PNG", "cat"),
        ("cat 1.png", "cat"),
        ("cat.png", "cat"),
        ("cat", "cat"),
        ("cats/1.png", None),
        ("category.png", None),
        ("cat1.png", None),
        ("a cat.png", None),
        ("sea lion_3.png", "sea lion"),
        ("sea_3.png", "sea"),
        ("dog/cat_1.png", "dog"),
        ("DOG\\1.png", "dog"),
        ("füchse/1.png", "Füchse"),
        ("c++.png", "c++"),
        ("", None),
        (".png", None),
    ],
)
def test_the_class_is_that_of_the_folder_or_of_the_beginning_of_the_name(name: str, expected: str | None) -> None:
    assert true_class(name, ("cat", "dog", "sea", "sea lion", "Füchse", "c++")) == expected


@pytest.mark.parametrize(
    ("given", "below", "expected"),
    [
        ("pets", "cat/indoors/1.png", "cat"),
        ("pets", "train/cat/indoors/dog_1.png", "cat"),
        ("pets.zip", "photos/cat/dog/1.png", "cat"),  # as an import understands it
        ("dog/pets", "cat/1.png", "cat"),
        ("dog/pets", "indoors/1.png", "dog"),
        ("dog", "1.png", "dog"),
        ("pets/dog", "cat_1.png", "dog"),
        ("pets", "fu\u0308chse/1.png", "Füchse"),
        ("pets", "indoors/cat_1.png", "cat"),
        ("cat/indoors/dog_1.png", "", "cat"),
        ("cat/dog/1.png", "", "dog"),
    ],
)
def test_below_what_was_given_the_outermost_folder_counts_and_above_it_the_nearest(
    given: str, below: str, expected: str
) -> None:
    assert true_class(f"{given}/{below}" if below else given, ("cat", "dog", "Füchse"), below) == expected


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_the_truth_is_what_an_import_takes_for_it(kind: str, classifier: Classifier, tmp_path: Path) -> None:
    names = [f"{colour}/{other}/{number}.png" for colour in COLOURS for other in COLOURS for number in range(2)]
    place = put(kind, tmp_path, pngs(names))
    _, taken = understand(place, test_share=0)
    answers = answers_for(classifier, place)
    assert {answer.file: answer.true for answer in answers} == {f"{place}/{n}": c for n, (_, c) in taken.items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("1.png", "1"), ("10.png", None), ("1/x.png", "1"), ("1_10.png", "1"), ("0001.png", None), ("7/1.png", "7")],
)
def test_digits_are_not_taken_for_the_beginning_of_numbers(name: str, expected: str | None) -> None:
    assert true_class(name, tuple("0123456789")) == expected


@pytest.mark.parametrize("name", ["A", "a", "B", "b"])
def test_case_counts_where_classes_differ_in_it_alone(name: str) -> None:
    classes = ("A", "B", "a", "b")
    assert true_class(f"{name}/1.png", classes) == true_class(f"{name}_1.png", classes) == name
    assert true_class(f"{name}/1.png", classes[::-1]) == true_class(f"{name}_1.png", classes[::-1]) == name
