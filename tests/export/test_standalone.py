"""The same files get the same answers everywhere: in the app, from the command line, and of both exports."""

import ast
import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import HOSTILE, Exported, assert_in_the_projects_style
from odd_pictures import EXIF_WITH_ORIENTATION, EXIF_WITHOUT_ORIENTATION, bitmap, encode, jpeg_with_exif, transparent
from PIL import Image
from screen import open_page, show

from engine.base.text import format_probability
from engine.commands.main import main
from engine.export.standalone import merged_imports, predict_program, without_imports
from engine.images import ink, jpeg, pixels
from engine.images.pictures import open_picture
from engine.inference.batch import answer
from engine.inference.classifier import load_classifier
from engine.networks.model_file import load_preprocessing
from engine.runs.run import Run

KINDS = ["grey", "colour", "transferred"]
# With ink, and with a network that resizes to more than most pictures have; the others are swept over.
ANSWERED = [
    ("grey", "onnx"),
    ("transferred", "torch"),
    pytest.param("colour", "onnx", marks=pytest.mark.sweep),
    pytest.param("transferred", "onnx", marks=pytest.mark.sweep),
    pytest.param("grey", "torch", marks=pytest.mark.sweep),
    pytest.param("colour", "torch", marks=pytest.mark.sweep),
]
TURNED = 6  # EXIF: on its side


def light(height: int, width: int) -> np.ndarray:
    """Make a smooth picture, uint8 (height, width, 3), that is darker to the upper left and of changing colour."""
    down, right = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (np.stack([down, right, 1 - down * right], axis=2) * 220 + 20).astype(np.uint8)


def stroke(height: int, width: int) -> np.ndarray:
    """Make a picture of a dark stroke on paper, uint8 (height, width), as a pen would leave it."""
    down, right = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    ring = np.abs(np.hypot(down, 1.6 * right) - 0.6) < 0.09
    return np.where(ring | (np.abs(right) < 0.05) & (down > 0), 40, 215).astype(np.uint8)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Pictures of every sort that people have."""
    folder = tmp_path_factory.mktemp("files")
    exif = Image.Exif()
    exif[0x0112] = TURNED
    small = Image.fromarray(light(24, 20))
    alpha = np.dstack([light(40, 30), np.tile(np.linspace(0, 255, 30).astype(np.uint8), (40, 1))])
    palette = small.quantize(8)
    frames = [Image.fromarray(light(30, 30)[::turn]) for turn in (1, -1)]
    deep = np.linspace(0, 65535, 30 * 20).reshape(30, 20)
    saved: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "small.png": (small, {}),
        "grey.png": (small.convert("L"), {}),
        "turned.jpg": (Image.fromarray(light(60, 90)), {"exif": exif}),
        "cmyk.jpg": (small.convert("CMYK"), {}),
        "deep.png": (Image.fromarray(deep.astype(np.uint16)), {}),
        "deep.tif": (Image.fromarray((deep / 65535).astype(np.float32)), {}),
        "transparent.png": (Image.fromarray(alpha), {}),
        "transparent palette.png": (palette, {"transparency": bytes([0, 128, *[255] * 6])}),
        "film.gif": (frames[0], {"save_all": True, "append_images": frames[1:]}),
        "film.webp": (frames[0], {"save_all": True, "append_images": frames[1:], "lossless": True}),
        "dot.png": (Image.fromarray(light(1, 1)), {}),
        "upright line.png": (Image.fromarray(light(50, 1)), {}),
        "lying line.png": (Image.fromarray(light(1, 50)), {}),
        "wide.bmp": (Image.fromarray(light(222, 333)), {}),
        "two colours.png": (Image.fromarray(stroke(40, 40)).convert("1"), {}),
        "photograph.jpg": (Image.fromarray(light(1200, 1600)), {}),
        "larger than is looked at.png": (Image.fromarray(stroke(4200, 4100)), {"compress_level": 1}),
        "stroke.jpg": (Image.fromarray(stroke(333, 222)), {}),
        "-絵 [1].png": (Image.fromarray(stroke(90, 120)), {}),
    }
    for name, (image, options) in saved.items():
        image.save(folder / name, **options)
    turned = Image.fromarray(light(60, 90))
    progressive = encode(turned, "JPEG", progressive=True)
    written = {
        "damaged EXIF.jpg": jpeg_with_exif(turned, EXIF_WITH_ORIENTATION["a resolution in words"]),
        "EXIF without a header.jpg": jpeg_with_exif(turned, EXIF_WITHOUT_ORIENTATION["no header"]),
        "EXIF without a header.png": encode(turned, "PNG", exif=EXIF_WITHOUT_ORIENTATION["no header"]),
        "damaged EXIF.webp": encode(turned, "WEBP", exif=EXIF_WITH_ORIENTATION["cut short"]),
        "without its end.jpg": encode(turned, "JPEG")[:-2],
        "without its end, then zeros.jpg": progressive[:-2] + bytes(512),
        "unused alpha.bmp": bitmap(light(40, 30), 0),
        "unused alpha.png": transparent(light(40, 30), "PNG"),
        "unused alpha.tga": transparent(light(40, 30), "TGA"),
    }
    for name, content in written.items():
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in (*saved, *written)]


@dataclass(frozen=True)
class Ended:
    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> list[dict[str, Any]]:
        return json.loads(self.stdout)


def predict(exported: Exported, *arguments: str, python: Path | str = sys.executable, cwd: Path | None = None) -> Ended:
    """Run the exported program as somebody would who has nothing of Loupe."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LOUPE", "PYTHON"))}
    ended = subprocess.run(
        [str(python), "-I", "-W", "error", str(exported.folder / "predict.py"), *arguments],
        cwd=cwd or exported.folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def app_answers(run: Run, paths: list[str], normalize: bool = True) -> list[dict[str, Any]]:
    classifier = load_classifier(run)
    channels = classifier.preprocessing.image_shape[2]
    found = [answer(classifier, path, open_picture(Path(path), channels), normalize) for path in paths]
    return [one.as_document() for one in found]


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [row["file"] for row in found] == [row["file"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert "error" not in one, one
        assert one["label"] == other["label"], one["file"]
        assert len(one["top"]) == len(other["top"])
        first, second = ([place["confidence"] for place in row["top"]] for row in (one, other))
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-4, err_msg=one["file"])


@pytest.mark.parametrize(("kind", "format"), ANSWERED)
def test_all_give_the_same_answers_to_the_same_files(
    kind: str, format: str, files: list[str], export_of, at, capsys
) -> None:
    exported = export_of(kind, format)
    run = at(exported.run)
    expected = app_answers(run, files)
    confidences = [row["confidence"] for row in expected]
    assert np.std(confidences) > 0.01 and min(confidences) < 0.99, "answers that tell nothing"
    assert main(["predict", run.id, *files, "--json"]) == 0
    assert_same(json.loads(capsys.readouterr().out), expected)
    ended = predict(exported, "--json", *files)
    assert (ended.code, ended.stderr) == (0, "")
    assert_same(ended.document, expected)
    if kind == "colour":
        assert {place["label"] for row in expected for place in row["top"]} == set(HOSTILE)


def test_ink_is_read_as_ink_or_not_as_one_asks(files: list[str], export_of) -> None:
    exported = export_of("grey", "onnx")
    assert load_preprocessing(exported.run.weights).ink
    inked = [path for path in files if "stroke" in path or "絵" in path]
    expected = app_answers(exported.run, inked, normalize=False)
    assert_same(predict(exported, "--json", "--no-ink", *inked).document, expected)
    normalized = app_answers(exported.run, inked)
    assert normalized != expected
    assert_same(predict(exported, "--json", *inked).document, normalized)


def test_the_page_gives_the_same_answers(files: list[str], export_of, copied, monkeypatch) -> None:
    # AppTest leaves the app in its place.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    exported, run = export_of("grey", "onnx"), copied("grey")
    chosen = ("turned", "deep", "transparent", "dot", "stroke", "damaged EXIF")
    few = [path for path in files if Path(path).stem in chosen]
    app = open_page("classify", run=run.id)
    app.file_uploader[0].set_value([(Path(path).name, Path(path).read_bytes(), "image/png") for path in few])
    table = show(app).dataframe[0].value
    answers = {Path(row["file"]).name: row for row in predict(exported, "--json", *few).document}
    assert len(few) == 8 and sorted(table.file) == sorted(answers)
    for file, label, confidence in zip(table.file, table.label, table.confidence, strict=True):
        assert label == answers[file]["label"]
        assert confidence == pytest.approx(answers[file]["confidence"], abs=1e-4)


def test_a_line_for_each_says_the_label_and_how_sure_it_is(files: list[str], export_of, tmp_path: Path) -> None:
    exported = export_of("grey", "onnx")
    (tmp_path / "a.png").write_bytes(Path(files[0]).read_bytes())
    (row,) = app_answers(exported.run, [files[0]])
    ended = predict(exported, "a.png", cwd=tmp_path)
    assert ended == Ended(0, f"a.png: {row['label']} ({format_probability(row['confidence'])})\n", "")


def test_a_bad_file_is_told_of_and_the_others_are_classified(files: list[str], export_of, tmp_path: Path) -> None:
    photograph = encode(Image.fromarray(light(60, 90)), "JPEG")
    cut = {"cut.png": Path(files[0]).read_bytes()[:90], "cut.jpg": photograph[: len(photograph) * 2 // 3]}
    for name, content in {**cut, "text.png": b"text", "empty.jpg": b""}.items():
        (tmp_path / name).write_bytes(content)
    script = tmp_path / "script.eps"
    script.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    bad = ["cut.png", "cut.jpg", "text.png", "empty.jpg", "none.png", ".", "script.eps"]
    exported = export_of("colour", "onnx")
    ended = predict(exported, "--json", *bad, files[0], cwd=tmp_path)
    assert (ended.code, ended.stderr) == (1, "")
    *failed, last = ended.document
    assert [(row["file"], bool(row["error"])) for row in failed] == [(name, True) for name in bad]
    assert last["file"] == files[0] and "label" in last


def test_names_cannot_steer_the_terminal(files: list[str], export_of, tmp_path: Path) -> None:
    exported = export_of("colour", "onnx")
    names = ["a\x1b[2J\n.png", os.fsdecode(b"\xff.png"), "絵.png"]
    for name in names:
        shutil.copy(files[0], tmp_path / name)
    ended = predict(exported, *names, cwd=tmp_path)
    assert (ended.code, ended.stderr) == (0, "")
    assert len(ended.stdout.splitlines()) == 3
    assert all(line.isprintable() for line in ended.stdout.splitlines())
    assert [line.partition(": ")[0] for line in ended.stdout.splitlines()] == [
        "a\\x1b[2J\\n.png",
        "\\udcff.png",
        "絵.png",
    ]
    assert [row["file"] for row in predict(exported, "--json", *names, cwd=tmp_path).document] == names


@pytest.mark.parametrize("format", ["onnx", pytest.param("torch", marks=pytest.mark.sweep)])
def test_rows_are_read_from_a_table(format: str, export_of, tmp_path: Path) -> None:
    exported = export_of("rows", format)
    rows = np.random.normal(size=(6, 4)).astype(np.float32)
    for name, some in (("many.csv", rows[:5]), ("one.csv", rows[5:])):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows(some.tolist())
    (tmp_path / "other.csv").write_text("1,2,3\n")
    ended = predict(exported, "--json", "many.csv", "one.csv", "other.csv", cwd=tmp_path)
    assert (ended.code, ended.stderr) == (1, "")
    *answered, refused = ended.document
    assert "error" in refused
    assert [row["file"] for row in answered] == ["many.csv"] * 5 + ["one.csv"]
    classifier = load_classifier(exported.run)
    (expected,) = classifier.probabilities(rows)
    assert [row["label"] for row in answered] == [classifier.classes[label] for label in expected.argmax(axis=1)]
    confidences = [row["confidence"] for row in answered]
    np.testing.assert_allclose(confidences, expected.max(axis=1), rtol=0, atol=1e-4)


# The program itself


@pytest.mark.parametrize(("model", "runtime"), [("model.onnx", "onnxruntime"), ("model.pt2", "torch")])
@pytest.mark.parametrize("kind", [*KINDS, "rows"])
def test_the_program_is_in_the_projects_style_and_needs_only_what_it_says(
    kind: str, model: str, runtime: str, run_of
) -> None:
    text = predict_program(model, load_preprocessing(run_of(kind).weights))
    assert_in_the_projects_style(text)
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module.partition(".")[0] for node in imports if isinstance(node, ast.ImportFrom) and node.module}
    others = {name for name in modules if name not in sys.stdlib_module_names}
    assert others == ({runtime, "numpy"} if kind == "rows" else {runtime, "numpy", "PIL", "pillow_heif"})


def test_it_holds_the_very_text_that_loupe_runs(run_of) -> None:
    preprocessing = load_preprocessing(run_of("grey").weights)
    program = predict_program("model.onnx", preprocessing)
    for module in (jpeg, pixels, ink):
        assert without_imports(Path(module.__file__).read_text(encoding="utf-8")) in program
    defined = [node.name for node in ast.parse(program).body if isinstance(node, ast.FunctionDef)]
    assert len(defined) == len(set(defined))
    assert "normalize_ink" not in predict_program("model.onnx", load_preprocessing(run_of("colour").weights))


def test_imports_of_several_modules_are_written_once_each() -> None:
    sources = ["import os\nimport numpy as np\nfrom PIL import Image\n", "from PIL import ImageOps, Image\nimport os\n"]
    assert merged_imports(sources) == "import os\n\nimport numpy as np\nfrom PIL import Image, ImageOps"


# Where nothing of Loupe is


@pytest.mark.sweep
def test_it_runs_in_a_fresh_environment(files: list[str], export_of, tmp_path: Path) -> None:
    """Install what the program asks for, and nothing else."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", str(fresh)], check=True, env=environment)
    pip = [str(fresh / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    installed = subprocess.run(
        [*pip, "install", "--quiet", "onnxruntime", "numpy", "pillow"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"pip cannot install: {installed.stderr.strip().splitlines()[-1]}")
    there = json.loads(subprocess.check_output([*pip, "list", "--format", "json"], env=environment))
    assert not {"torch", "torchvision", "safetensors", "streamlit"} & {package["name"].lower() for package in there}
    for kind in ("grey", "colour"):
        exported = export_of(kind, "onnx")
        moved = replace(exported, model=tmp_path / kind / exported.model.name)
        shutil.copytree(exported.folder, moved.folder)
        ended = predict(moved, "--json", *files, python=fresh / "bin" / "python", cwd=tmp_path)
        assert (ended.code, ended.stderr) == (0, "")
        assert_same(ended.document, app_answers(exported.run, files))
