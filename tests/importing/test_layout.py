import codecs
import os
import unicodedata
from pathlib import Path

import pytest
from picture_files import files_of, import_pictures, listing_of, pack, png, pngs, put, refusal, understand, write

from engine.importing.plan import Request, plan_import

PETS = pngs(f"{label}/{number}.png" for label in ("cats", "dogs") for number in range(3))
SPLIT_PETS = pngs(
    f"{split}/{label}/{number}.png"
    for split in ("train", "val", "test")
    for label in ("cats", "dogs")
    for number in range(2)
)
MORE = {"more.png": png(10), "more 2.png": png(11)}
IMAGES = pngs(f"images/{number}.png" for number in range(4))
TABLE = (
    "file,label,split\nimages/0.png,cat,train\nimages/1.png,dog,train\nimages/2.png,cat,val\nimages/3.png,dog,test\n"
)
SPLITS_OF_TABLE = {
    "images/0.png": ("train", "cat"),
    "images/1.png": ("train", "dog"),
    "images/2.png": ("val", "cat"),
    "images/3.png": ("test", "dog"),
}
KINDS = pytest.mark.parametrize("kind", ["folder", "zip"])
LEVELS = pytest.mark.parametrize("level", ["", "pets/"], ids=["at the top", "in a folder"])


def under(level: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {level + name: content for name, content in files.items()}


def refusal_of(path: Path, **settings) -> str:
    return refusal(plan_import(Request("pictures", str(path), **settings)))


# Folders


@KINDS
@LEVELS
def test_a_folder_for_each_class_makes_the_classes(tmp_path, kind, level):
    plan, found = understand(put(kind, tmp_path, under(level, PETS)), test_share=0)
    assert found == {level + name: ("train", name.split("/")[0]) for name in PETS}
    assert (plan.classes, plan.counts) == (("cats", "dogs"), {"train": [3, 3]})
    assert plan.layout == "a folder for each class" + (", all in the folder pets" if level else "")
    assert plan.problems == 0


@KINDS
@LEVELS
@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training", "VALID", "Testing"), ("TRAIN", "Validation", "Test")],
)
def test_folders_of_splits_are_known_by_each_of_their_names(tmp_path, kind, level, train, val, test):
    named = {"train": train, "val": val, "test": test}
    files = {
        f"{level}{named[split]}/{rest}": content
        for (split, _, rest), content in ((name.partition("/"), content) for name, content in SPLIT_PETS.items())
    }
    plan, found = understand(put(kind, tmp_path, files))
    named_back = {folder: split for split, folder in named.items()}
    for name, (split, label) in found.items():
        folder, its_label, _ = name.removeprefix(level).split("/")
        assert (split, label) == (named_back[folder], its_label)
    assert plan.counts == {"train": [2, 2], "val": [2, 2], "test": [2, 2]}
    assert plan.layout.startswith(f"splits ({train}, {val} and {test}) with a folder for each class")


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "valid")])
def test_two_splits_are_enough(tmp_path, splits):
    files = pngs(f"{split}/{label}/1.png" for split in splits for label in ("cats", "dogs"))
    plan, _ = understand(write(tmp_path / "pets", files))
    second = {"test": "test", "valid": "val"}[splits[1]]
    assert plan.counts == {"train": [1, 1], second: [1, 1]}
    assert any("there is no test split" in note for note in plan.notes) == (second == "val")


@KINDS
def test_folders_in_the_folder_of_a_class_belong_to_the_class(tmp_path, kind):
    files = pngs(["cats/1.png", "cats/2019/june/2.png", "cats/2020/3.png", "dogs/a/b/c/d/4.png", "dogs/5.png"])
    _, found = understand(put(kind, tmp_path, files), test_share=0)
    assert found == {name: ("train", name.split("/")[0]) for name in files}


def test_a_class_may_be_called_train(tmp_path):
    plan, _ = understand(write(tmp_path, pngs(f"{vehicle}/{i}.png" for vehicle in ("bus", "train") for i in (1, 2))))
    assert plan.classes == ("bus", "train")
    assert plan.counts == {"train": [1, 1], "test": [1, 1]}


def test_a_folder_train_of_classes_beside_another_folder_is_a_split(tmp_path):
    files = pngs(["train/cats/1.png", "train/dogs/2.png", "extra/3.png"])
    plan, found = understand(write(tmp_path, files), test_share=0)
    assert set(found) == {"train/cats/1.png", "train/dogs/2.png"}
    assert plan.problems == 1


def test_classes_of_any_split_are_classes_and_one_that_is_not_trained_is_told(tmp_path):
    files = pngs(["train/cats/1.png", "train/dogs/2.png", "test/cats/3.png", "test/eels/4.png"])
    plan, _ = understand(write(tmp_path, files))
    assert plan.classes == ("cats", "dogs", "eels")
    assert plan.counts == {"train": [1, 1, 0], "test": [1, 0, 1]}
    assert "there are test images but no training images of eels" in plan.notes


def test_classes_stand_in_the_order_that_people_count_in(tmp_path):
    names = ["10", "2", "Item 12", "item 3", "1", "apple"]
    plan, _ = understand(write(tmp_path, pngs(f"{name}/1.png" for name in names)))
    assert plan.classes == ("1", "2", "10", "apple", "item 3", "Item 12")


@KINDS
def test_accents_that_are_put_together_in_two_ways_name_one_class(tmp_path, kind):
    together, apart = unicodedata.normalize("NFC", "Füchse"), unicodedata.normalize("NFD", "Füchse")
    assert together != apart
    files = pngs([f"train/{together}/1.png", "train/dogs/2.png", f"test/{apart}/3.png", "test/dogs/4.png"])
    plan, found = understand(put(kind, tmp_path, files))
    assert plan.classes == ("dogs", together)
    assert found[f"test/{together}/3.png"] == ("test", together)


@pytest.mark.slow
def test_names_that_are_no_text_are_read_all_the_same(tmp_path):
    folder = os.fsencode(tmp_path / "pets")
    for number, name in enumerate([b"cats/\xff.png", b"cats/\xfe.png", b"d\xf6gs/1.png", b"d\xf6gs/2.png"]):
        path = os.path.join(folder, name)  # noqa: PTH118 - of bytes
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(png(number))
    dataset = import_pictures("pets", tmp_path / "pets", test_share=0)
    assert dataset.classes == ("cats", "d\\udcf6gs")
    assert dataset.bad_file_count == 0
    assert files_of(dataset, "train")[:2] == ["cats/\\udcfe.png", "cats/\\udcff.png"]


@KINDS
def test_what_systems_leave_among_pictures_is_neither_class_nor_bad(tmp_path, kind):
    left = pngs(
        [
            ".hidden/1.png",
            "__MACOSX/cats/._1.png",
            ".ipynb_checkpoints/1-checkpoint.png",
            "cats/.ipynb_checkpoints/1-checkpoint.png",
            "cats/._0.png",
            "@eaDir/1.png",
        ]
    ) | {"Thumbs.db": b"x", "cats/Thumbs.db": b"x", "dogs/desktop.ini": b"x", ".DS_Store": b"x"}
    plan, found = understand(put(kind, tmp_path, PETS | left), test_share=0)
    assert set(found) == set(PETS)
    assert plan.classes == ("cats", "dogs")
    assert (plan.problems, plan.notes) == (
        0,
        ("there is no test split: a model can be judged on validation images only",),
    )


@KINDS
def test_a_picture_in_no_class_folder_is_bad_and_other_files_are_counted(tmp_path, kind):
    path = put(kind, tmp_path, PETS | {"loose.png": png(), "README.txt": b"Pets.", "papers/licence.md": b"Free."})
    plan, found = understand(path, test_share=0)
    assert set(found) == set(PETS)
    assert problems_of(path, test_share=0) == {"loose.png": "It is in no class folder. Move it into one."}
    assert any("1 bad file already" in sentence for sentence in plan.in_words())
    assert "left out: 2 other files, no pictures or in no class folder or manifest" in plan.notes


def test_files_of_another_kind_in_a_class_are_taken_for_pictures(tmp_path):
    # They are told one by one when they are not: a picture may have any name.
    _, found = understand(write(tmp_path, PETS | {"cats/whiskers": png(7)}), test_share=0)
    assert found["cats/whiskers"] == ("train", "cats")


@KINDS
def test_annotations_beside_the_pictures_of_a_class_are_left_out(tmp_path, kind):
    notes = {name.replace("png", ending): b"note" for name in PETS for ending in ("xml", "TXT")}
    notes |= {f"annotations/{number}.xml": b"note" for number in range(2)}
    plan, found = understand(put(kind, tmp_path, PETS | notes), test_share=0.5)
    assert set(found) == set(PETS)
    assert plan.problems == 0
    assert any(note.startswith("left out: 14 other files") for note in plan.notes)


def test_a_text_with_the_suffix_of_a_picture_or_an_unknown_one_is_tried(tmp_path):
    _, found = understand(write(tmp_path, PETS | {"cats/a.png": b"text", "cats/b.what": b"text"}), test_share=0)
    assert found["cats/a.png"] == found["cats/b.what"] == ("train", "cats")


def test_a_folder_that_cannot_be_entered_is_a_bad_file(tmp_path, monkeypatch):
    # A link to outside of what may be imported; root may read all other folders.
    pets, outside = write(tmp_path / "pets", PETS), write(tmp_path / "outside", pngs(["1.png"]))
    for name in ("eels", "cats/more"):
        (pets / name).symlink_to(outside)
    monkeypatch.setenv("LOUPE_IMPORT_ROOTS", str(pets))
    plan, found = understand(pets, test_share=0)
    assert set(found) == set(PETS)
    assert plan.classes == ("cats", "dogs")
    reason = "It is a link to outside the folders that may be imported from."
    assert problems_of(pets, test_share=0) == {"eels": reason, "cats/more": reason}
    alone = tmp_path / "pets" / "alone"
    alone.mkdir()
    (alone / "eels").symlink_to(outside)
    assert refusal_of(alone) == f"There are no images in {alone} that may be read, the first eels: {reason}"


def test_files_without_suffixes_may_be_the_pictures(tmp_path):
    plan, found = understand(write(tmp_path, pngs(["cats/1", "cats/2", "dogs/1"])), test_share=0)
    assert plan.classes == ("cats", "dogs")
    assert len(found) == 3


@KINDS
@pytest.mark.parametrize("name", ["{}.jfif", "{}", "{}.jpg?w=100"])
def test_a_class_of_pictures_with_other_suffixes_is_one(tmp_path, kind, name):
    eels = pngs(f"eels/{name.format(number)}" for number in range(3))
    plan, found = understand(put(kind, tmp_path, PETS | eels | {"letters/1": b"text"}), test_share=0)
    assert plan.classes == ("cats", "dogs", "eels")
    assert set(found) == {*PETS, *eels}
    assert plan.notes[0] == "nothing is taken of letters (1 file)"


def test_a_class_of_pictures_that_are_not_read_is_named_first_with_what_it_takes(tmp_path):
    path = write(tmp_path, PETS | {"eels/1.nef": b"II*\0", "eels/2.CR2": b"II*\0", "cats/9": b"8BPS\0\1"})
    plan, found = understand(path, test_share=0)
    assert set(found) == set(PETS)
    assert plan.notes[:3] == (
        "nothing is taken of eels (2 files)",
        "not read: 2 files, the first eels/1.nef. This is a camera raw picture, which is not read. "
        "Save it as PNG or JPEG",
        "not read: one file, cats/9. This is a PSD picture, which is not read. Save it as PNG or JPEG",
    )
    assert plan.problems == 3
    alone = write(tmp_path / "alone", {"eels/1.nef": b"", "cats/2.nef": b""})
    assert "may be read, the first cats/2.nef: This is a camera raw picture, which is not read." in refusal_of(alone)


# Names in other encodings


def pack_named(path: Path, names: list[bytes]) -> Path:
    """Write a zip whose names are these bytes, without the flag of UTF-8; each has as many bytes as characters here."""
    stand_ins = [bytes(byte if byte < 128 else 97 + byte % 26 for byte in name) for name in names]
    stand_ins = [b"%d%s" % (number, name[1:]) for number, name in enumerate(stand_ins)]
    pack(path, {name.decode(): png(number) for number, name in enumerate(stand_ins)})
    content = path.read_bytes()
    for stand_in, name in zip(stand_ins, names, strict=True):
        content = content.replace(stand_in, name)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("encoding", "spoken", "classes"),
    [
        ("cp932", "Shift-JIS", ("ソース", "ソフト", "表")),  # their letters hold the byte of a backslash
        ("big5", "Big5", ("功能", "許可", "蘋果")),
        ("gbk", "GBK", ("苹果", "香蕉", "划痕")),
        ("cp949", "cp949", ("고양이", "강아지", "사과")),
        ("cp866", "cp866", ("кошки", "собаки", "птицы")),
    ],
)
def test_names_in_a_zip_that_are_in_another_encoding_are_read_and_it_is_said(tmp_path, encoding, spoken, classes):
    path = pack_named(tmp_path / "a.zip", [f"{name}/{n}.png".encode(encoding) for name in classes for n in range(2)])
    plan, _ = understand(path, test_share=0)
    assert set(plan.classes) == set(classes)
    assert plan.counts == {"train": [2, 2, 2]}
    assert plan.notes[0] == (
        f"the names in a.zip do not say their encoding and are read as {spoken}; where they are wrong, choose another "
        "for names in"
    )


def test_the_encoding_of_names_can_be_chosen(tmp_path):
    names = [f"{name}/1.png".encode("cp932") for name in ("猫", "犬")]
    path = pack_named(tmp_path / "a.zip", names)
    plan, _ = understand(path, names_in="cp437")
    assert len(plan.classes) == 2
    assert "猫" not in plan.classes
    assert "are read as cp437" in plan.notes[0]
    assert refusal_of(path, names_in="utf-8").startswith("Not all names in the zip archive a.zip are in utf-8.")
    assert refusal_of(path, names_in="klingon").startswith("'klingon' is no encoding that is known.")


def test_classes_that_differ_in_case_or_spaces_only_are_told(tmp_path):
    plan, _ = understand(write(tmp_path, pngs(["Cat/1.png", "cat/1.png", "cat /1.png", "dog/1.png"])))
    assert len(plan.classes) == 4
    assert [note for note in plan.notes if note.startswith("the classes")] == [
        "the classes 'Cat', 'cat' and 'cat ' differ in case or spaces only"
    ]


# Splits by other names


@KINDS
@LEVELS
@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("training_set/training_set", "test_set/test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("Train Data", "Test Data"),
        ("TrainImages", "TestImages"),
        ("asl_alphabet_train", "asl_alphabet_test"),
        ("train", "test_set"),
        ("train/train", "test/test"),
        ("trainset", "evaluation"),
    ],
)
def test_folders_of_the_same_classes_that_are_called_like_splits_are_splits(tmp_path, kind, level, train, test):
    files = pngs(f"{level}{split}/{label}/1.png" for split in (train, test) for label in ("cats", "dogs"))
    plan, found = understand(put(kind, tmp_path, files))
    assert plan.counts == {"train": [1, 1], "test": [1, 1]}
    assert plan.classes == ("cats", "dogs")
    assert found[f"{level}{test}/cats/1.png"] == ("test", "cats")
    train, test = train.partition("/")[0], test.partition("/")[0]
    is_noted = f"read as splits: {test} as test and {train} as train" in plan.notes
    is_noted |= f"read as splits: {train} as train and {test} as test" in plan.notes
    assert is_noted == ((train, test) != ("train", "test"))


def test_a_folder_beside_splits_without_classes_is_left_out_and_named_first(tmp_path):
    files = pngs(f"seg_{split}/seg_{split}/{label}/1.png" for split in ("train", "test") for label in ("sea", "forest"))
    plan, _ = understand(write(tmp_path, files | pngs(["seg_pred/seg_pred/1.png", "seg_pred/seg_pred/2.png"])))
    assert plan.classes == ("forest", "sea")
    assert plan.notes[0] == "nothing is taken of seg_pred (2 files)"


def test_a_test_folder_of_bare_pictures_makes_no_class_of_the_training_folder(tmp_path):
    files = pngs(["abc_train/A/1.png", "abc_train/B/1.png", "abc_test/A_test.png"])
    plan, _ = understand(write(tmp_path, files), test_share=0)
    assert (plan.classes, plan.counts) == (("A", "B"), {"train": [1, 1]})
    assert plan.notes[0] == "nothing is taken of abc_test (1 file)"


@pytest.mark.parametrize(
    "names",
    [
        ["steam_train/1.png", "bus/1.png", "test_car/1.png"],
        ["steam_train/2019/1.png", "bus/2019/1.png", "test_car/2019/1.png", "van/2019/1.png"],
        ["training shoes/a/1.png", "training shoes/b/1.png", "test tubes/c/1.png"],
        ["valid/1.png", "invalid/1.png"],
    ],
)
def test_classes_whose_names_speak_of_splits_stay_classes(tmp_path, names):
    plan, found = understand(write(tmp_path, pngs(names)), test_share=0)
    assert {name: label for name, (_, label) in found.items()} == {name: name.split("/")[0] for name in names}
    assert len(plan.classes) == len({name.split("/")[0] for name in names})


def test_where_folders_may_be_splits_or_classes_both_are_told_and_one_can_be_chosen(tmp_path):
    bare = write(tmp_path / "bare", pngs(["train/1.png", "test/2.png"]))
    assert "or choose the layout classes, if the folders themselves are the classes." in refusal_of(bare)
    assert understand(bare, layout="classes")[0].classes == ("test", "train")
    assert "no class folders with images in train" in refusal_of(bare, layout="splits")
    called = write(tmp_path / "called", pngs(["train_images/1.png", "test_images/2.png"]))
    plan, _ = understand(called)
    assert plan.classes == ("test_images", "train_images")
    assert plan.notes[0] == (
        "the folders train_images and test_images are read as classes, though their names are those of splits"
    )
    sets = write(tmp_path / "sets", pngs(f"{split}_set/{label}/1.png" for split in ("train", "test") for label in "ab"))
    plan, _ = understand(sets)
    assert plan.classes == ("a", "b")
    assert "to have each of these folders be a class, choose the layout classes" in plan.notes
    plan, _ = understand(sets, layout="classes")
    assert plan.classes == ("test_set", "train_set")
    trains = write(tmp_path / "trains", pngs(["steam_train/a/1.png", "steam_train/b/2.png", "test_car/c/3.png"]))
    plan, _ = understand(trains)
    assert plan.classes == ("steam_train", "test_car")
    assert "choose the layout splits" in plan.notes[0]
    plan, _ = understand(trains, layout="splits")
    assert plan.counts == {"train": [1, 1, 0], "test": [0, 0, 1]}
    pets = write(tmp_path / "pets", PETS)
    assert "None of the folders cats, dogs is called like a split" in refusal_of(pets, layout="splits")
    assert refusal_of(pets, layout="piles") == "The layout is 'piles', but must be splits or classes."


def test_several_folders_around_the_classes_are_taken_off(tmp_path):
    plan, _ = understand(write(tmp_path, under("archive/pets/", PETS)))
    assert plan.classes == ("cats", "dogs")
    assert plan.layout == "a folder for each class, all in the folder archive/pets"


# Test images in another place


@KINDS
def test_another_source_has_the_test_images(tmp_path, kind):
    train = write(tmp_path / "train", PETS)
    test = put(kind, tmp_path, pngs(["dogs/9.png", "eels/8.png"]))
    plan, found = understand(train, test=str(test))
    assert plan.classes == ("cats", "dogs", "eels")
    assert plan.counts == {"train": [3, 3, 0], "test": [0, 1, 1]}
    assert found["eels/8.png"] == ("test", "eels")


def test_a_source_with_test_images_takes_no_others(tmp_path):
    path, other = write(tmp_path / "split", SPLIT_PETS), write(tmp_path / "other", PETS)
    assert "has test images of its own. Import it without another test folder." in refusal_of(path, test=str(other))
    assert "has test images of its own. Leave out the test share" in refusal_of(path, test_share=0.5)
    assert "has splits, but is named as test images" in refusal_of(other, test=str(path))


# Manifests


@KINDS
@LEVELS
@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("list.csv", TABLE),
        ("list.tsv", TABLE.replace(",", "\t")),
        ("LIST.CSV", TABLE.replace(",", ";")),
        ("list.csv", codecs.BOM_UTF8.decode() + TABLE),
        ("list.csv", TABLE.replace("\n", "\r\n\r\n").replace("file,label,split", " File , LABEL ,Split")),
        ("list.csv", "".join(f"{line.split(',')[1]},note,{line}\n" for line in TABLE.splitlines())),
        ("list.csv", TABLE.replace("images/", "images\\").replace("val", "validation")),
        ("list.csv", TABLE.replace(",train", ",Train set").replace(",val", ",dev")),
    ],
    ids=["CSV", "TSV", "semicolons", "BOM", "blank lines and spaces", "more columns", "Windows", "other splits"],
)
def test_a_manifest_in_the_source_tells_splits_and_labels(tmp_path, kind, level, name, table):
    if table.startswith("label,note"):
        table = table.replace("label,note,file,label,split", "nothing,note,file,label,split", 1)
    files = under(level, IMAGES | {name: table.encode()})
    plan, found = understand(put(kind, tmp_path, files))
    assert found == {level + file: placed for file, placed in SPLITS_OF_TABLE.items()}
    assert plan.layout == f"the manifest {level}{name}"
    assert plan.problems == 0


@KINDS
@LEVELS
def test_a_manifest_may_lie_among_its_pictures(tmp_path, kind, level):
    files = pngs(["0.png", "1.png"]) | {"list.csv": b"file,label\n0.png,cat\n1.png,dog\n"}
    _, found = understand(put(kind, tmp_path, under(level, files)), test_share=0)
    assert found == {f"{level}0.png": ("train", "cat"), f"{level}1.png": ("train", "dog")}


def test_a_manifest_without_splits_leaves_them_to_the_test_share(tmp_path):
    table = "file,label\n" + "".join(f"images/{number}.png,{'ab'[number % 2]}\n" for number in range(4))
    write(tmp_path, IMAGES | {"list.csv": table.encode()})
    for path in (tmp_path, tmp_path / "list.csv"):
        plan, _ = understand(path, test_share=0.5)
        assert plan.counts == {"train": [1, 1], "test": [1, 1]}


@pytest.mark.parametrize("name", ["list.csv", "list.TSV"])
def test_a_manifest_named_itself_lists_the_files(tmp_path, name):
    table = TABLE.replace(",", "\t") if name.endswith("TSV") else TABLE
    write(tmp_path, IMAGES | {name: table.encode(), "images/not named.png": png(9)})
    plan, found = understand(tmp_path / name)
    assert found == SPLITS_OF_TABLE
    assert plan.layout == f"the manifest {name}"


@pytest.mark.parametrize(
    ("columns", "note"),
    [
        ("filename,class,split", "columns: filename is taken as file and class is taken as label"),
        (
            "Image,Category,Subset",
            "columns: image is taken as file, category is taken as label and subset is taken as split",
        ),
        ("path,label,split", "columns: path is taken as file"),
    ],
)
def test_columns_of_other_names_are_taken_and_told(tmp_path, columns, note):
    write(tmp_path, IMAGES | {"list.csv": TABLE.replace("file,label,split", columns).encode()})
    plan, found = understand(tmp_path / "list.csv")
    assert found == SPLITS_OF_TABLE
    assert note in plan.notes


def test_a_column_of_its_own_name_is_taken_before_others(tmp_path):
    table = "path,file,class,label\n" + "".join(f"x,images/{n}.png,x,{'ab'[n % 2]}\n" for n in range(4))
    write(tmp_path, IMAGES | {"list.csv": table.encode()})
    plan, _ = understand(tmp_path / "list.csv")
    assert plan.classes == ("a", "b")
    assert not any(note.startswith("columns") for note in plan.notes)


def test_a_manifest_may_give_whole_paths_into_its_folder(tmp_path):
    write(tmp_path, IMAGES | {"list.csv": TABLE.replace("images/", f"{tmp_path}/images/").encode()})
    for path in (tmp_path, tmp_path / "list.csv"):
        assert understand(path)[1] == SPLITS_OF_TABLE


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("form_of_file", ["NFC", "NFD"])
def test_a_manifest_finds_files_whichever_way_accents_are_put_together(tmp_path, form, form_of_file):
    write(tmp_path, {unicodedata.normalize(form_of_file, "Füchse 1.png"): png(1), "2.png": png(2)})
    table = unicodedata.normalize(form, "file,label\nFüchse 1.png,Füchse\n2.png,Hunde\n")
    write(tmp_path, {"list.csv": table.encode()})
    for path in (tmp_path, tmp_path / "list.csv"):
        with listing_of(path, test_share=0) as (listing, plan):
            assert (plan.classes, plan.problems) == (("Füchse", "Hunde"), 0)
            rows = listing.database.execute("SELECT source, place FROM images ORDER BY class").fetchall()
            assert [listing.sources[source].read(place) for source, place in rows] == [png(1), png(2)]


def problems_of(path: Path, **settings) -> dict[str, str]:
    with listing_of(path, **settings) as (listing, _):
        return dict(listing.database.execute("SELECT name, problem FROM files WHERE problem NOT NULL"))


@KINDS
def test_lines_of_a_manifest_that_name_no_file_of_it_are_bad(tmp_path, kind):
    table = (
        TABLE
        + "images/9.png,cat,train\n../outside.png,dog,test\n/etc/passwd,dog,train\n"
        + "images/a\0b.png,cat,train\n"
    )
    path = put(kind, tmp_path, IMAGES | {"list.csv": table.encode()})
    _, found = understand(path)
    assert found == SPLITS_OF_TABLE
    problems = problems_of(path)
    assert problems["images/9.png"] == "The manifest names it, but it is not there. Check its name."
    assert problems["../outside.png"] == "It lies outside the manifest's folder. Copy it there."
    assert problems["/etc/passwd"] == "It lies outside the manifest's folder. Copy it there."
    assert problems["images/a\0b.png"] == "Its name in the manifest holds a zero byte. Write the manifest anew."
    assert len(problems) == 4


@KINDS
def test_a_file_that_a_manifest_names_twice_is_kept_once_or_left_out_where_it_is_not_sure(tmp_path, kind):
    table = TABLE + "images/0.png,cat,train\nimages/1.png,cat,train\nimages/2.png,cat,test\nimages/3.png,eel,val\n"
    table += "more.png,dog,train\nmore.png,dog,train\n"
    path = put(kind, tmp_path, IMAGES | {"list.csv": (table + "more 2.png,dog,test\n").encode()} | MORE)
    for named in (path, path / "list.csv") if kind == "folder" else (path,):
        plan, found = understand(named)
        assert set(found) == {"images/0.png", "more.png", "more 2.png"}
        assert plan.counts == {"train": [1, 1], "test": [0, 1]}
        assert problems_of(named) == {
            "images/1.png": "The manifest names it as cat and as dog.",
            "images/2.png": "The manifest names it in test and in val.",
            "images/3.png": "The manifest names it as dog and as eel.",
        }
        assert not any("left out" in note for note in plan.notes)


@LEVELS
@KINDS
def test_a_manifest_of_which_no_file_is_there_is_told_with_the_first(tmp_path, kind, level):
    table = b"file,label\npictures/0.png,cat\npictures/1.png,dog\n"
    path = put(kind, tmp_path, under(level, IMAGES | {"list.csv": table}))
    for named in (path, path / f"{level}list.csv") if kind == "folder" else (path,):
        name = "list.csv" if named != path else f"{level}list.csv"
        assert refusal_of(named) == (
            f"The manifest {name} names 2 files, and none of them is there (the first: pictures/0.png). "
            "It may mean images/0.png: write each so, from the manifest's folder."
        )


@pytest.mark.parametrize(
    "first",
    ["0", "images/0", "images/0.PNG", "pets/images/0.png", "/home/me/images/0.png", "C:\\pets\\0.png", "0.jpg"],
)
def test_what_a_name_in_a_manifest_may_mean_is_told(tmp_path, first):
    write(tmp_path, IMAGES | {"list.csv": f"id,label\n{first},cat\n".encode()})
    message = refusal_of(tmp_path / "list.csv")
    assert message.endswith("It may mean images/0.png: write each so, from the manifest's folder.")


def test_where_no_file_is_meant_it_is_told_from_where_files_are_named(tmp_path):
    write(tmp_path, IMAGES | {"list.csv": b"file,label\n77.png,cat\n"})
    assert refusal_of(tmp_path / "list.csv").endswith("Files are named from the manifest's folder.")


@pytest.mark.slow
def test_a_manifest_may_name_a_folder_in_vain(tmp_path):
    table = "file,label\nimages,cat\n" + "".join(f"images/{number}.png,{'ab'[number % 2]}\n" for number in range(4))
    write(tmp_path, IMAGES | {"list.csv": table.encode()})
    dataset = import_pictures("pets", tmp_path / "list.csv", test_share=0)
    assert dataset.bad_file_count == 1


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_a_manifest_may_be_written_in_utf_16(tmp_path, mark):
    encoding = "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"
    write(tmp_path, IMAGES | {"list.csv": mark + TABLE.replace("cat", "Kätzchen").encode(encoding)})
    for path in (tmp_path, tmp_path / "list.csv"):
        assert understand(path)[1]["images/0.png"] == ("train", "Kätzchen")


def test_a_table_of_other_columns_is_no_manifest(tmp_path):
    plan, _ = understand(write(tmp_path, PETS | {"notes.csv": b"name,age\nTom,3\n", "latin.csv": b"K\xf6nig;1\n"}))
    assert plan.layout == "a folder for each class"


# What is refused


def no_file(path: Path) -> Path:
    return path / "missing"


def empty(path: Path) -> Path:
    path.mkdir()
    return path


def made_of(files: dict[str, bytes]):
    return lambda path: write(path, files)


def table_of(table: bytes):
    def make(path: Path) -> Path:
        return write(path, IMAGES | {"list.csv": table}) / "list.csv"

    return make


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (no_file, "There is no "),
        (empty, "There are no images in {path}: it is empty. Expected is a folder for each class"),
        (made_of({"notes/a.txt": b"text"}), "There are no class folders with images in {path}."),
        (made_of({"list.csv": b"file,label\n"}), "There are no images in {path}, which has 1 file of other"),
        (made_of({"list.csv": b"file,label\na.png,a"}), "names 1 file, and it is not there (the first: a.png)."),
        (made_of(pngs(["1.png", "2.png"])), "There are no class folders with images in {path}."),
        (made_of(pngs(["cats/1.png", "cats/2.png"])), "There is one class only, cats, in {path}"),
        (made_of(pngs(["train/1.png", "test/2.png"])), "train and test, but no class folders with images in train."),
        (made_of(pngs(["val/a/1.png", "test/b/2.png"])), "There are folders val and test, but none named train."),
        (pipe, "{path} is neither a folder nor a file."),
        (
            made_of({"cats/1.png": b"no", "dogs/2.png": b"no"}),
            "None of the 2 files that were looked at in {path} is an",
        ),
    ],
    ids=[
        "no path",
        "empty",
        "no pictures",
        "no images",
        "no image of a manifest",
        "no classes",
        "one class",
        "no classes in splits",
        "no train",
        "pipe",
        "bad",
    ],
)
def test_a_source_that_cannot_be_understood_is_refused(tmp_path, make, reason):
    path = make(tmp_path / "source")
    assert reason.format(path=path) in refusal_of(path)


@pytest.mark.parametrize("files", [{}, {"notes/a.txt": b"text"}, pngs(["cats/1.png"])])
def test_an_archive_without_classes_is_refused(tmp_path, files):
    assert str(tmp_path) in refusal_of(pack(tmp_path / "pictures.zip", files))


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    path = write(tmp_path, {"pictures.list": bytes(100)}) / "pictures.list"
    assert refusal_of(path).startswith(f"{path} is a file of another kind. Name a folder")


def test_archives_within_a_source_without_pictures_are_named(tmp_path):
    path = pack(tmp_path / "all.zip", {"train.zip": b"PK", "test/b.tar.gz": b"", "sample.csv": b"id,label\n1,0\n"})
    assert refusal_of(path) == (
        f"There are no images in {path} itself, which holds other archives: test/b.tar.gz, train.zip. Unpack it, and "
        "import what is in it."
    )


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (b"", "The first line of the manifest list.csv is '', but must name the columns file,label"),
        (b"name,class\n1.png,a\n", "is 'name,class', but must name the columns file,label or file,label,split."),
        (b"cat" * 100, f"list.csv is '{('cat' * 27)[:80]}...', but must name"),
        (b"\x89\xab\0\xff" * 100, "The manifest list.csv is not text in UTF-8. Save it as CSV in UTF-8."),
        (b"file,label\nimages/0.png,a\n\nimages/1.png,\n", "Line 4 of the manifest list.csv has no label."),
        (b"file,label\nimages/0.png\n", "Line 2 of the manifest list.csv has no label."),
        (b"file,label\nimages/0.png,a\n ,b\n", "Line 3 of the manifest list.csv has no file."),
        (
            TABLE.encode() + b"images/1.png,a,exam\n",
            "Line 6 of the manifest list.csv has the split 'exam', but it must",
        ),
        (b"file,label,split\nimages/1.png,a,\n", "Line 2 of the manifest list.csv has the split '', but it must be"),
        (
            b"file,label\nimages/0.png,K\xf6nig\n",
            "The manifest list.csv is not text in UTF-8. Save it as CSV in UTF-8.",
        ),
        (b"file,label\nimages/0.png," + b"a" * 200_000, "Line 2 of the manifest list.csv cannot be read (field larger"),
        (b"file,label\nimages/0.png,a\nimages/1.png,a\n", "There is one class only, a, in "),
        (b"file,label,split\nimages/0.png,a,test\nimages/1.png,b,val\n", "There are no images to train on in "),
        (b"file,label\n", "There are no images in "),
    ],
)
def test_a_manifest_that_cannot_be_understood_is_refused_with_the_line(tmp_path, table, reason):
    path = table_of(table)(tmp_path / "source")
    assert reason in refusal_of(path)
    if b"file,label" in table:  # found in its folder, it is the same
        assert reason in refusal_of(path.parent)


@KINDS
def test_several_manifests_are_refused_by_their_names(tmp_path, kind):
    path = put(kind, tmp_path, IMAGES | {"a.csv": TABLE.encode(), "b.csv": TABLE.encode(), "c.csv": b"x,y\n"})
    message = refusal_of(path)
    assert message.startswith("There are several manifests: a.csv and b.csv. Leave one, or name the one")
    if kind == "folder":
        assert understand(path / "b.csv")[1] == SPLITS_OF_TABLE
