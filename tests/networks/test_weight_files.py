import gzip
import os
import pickle
import random
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from engine.base.errors import LoupeError
from engine.networks.weight_files import fit_weights, read_weights

HEADS = {"resnet18": "fc", "mobilenet_v3_small": "classifier.3", "squeezenet1_0": "classifier.1"}


def network(name: str = "squeezenet1_0", num_classes: int = 7) -> nn.Module:
    """Build a network of torchvision with random weights, those of its batch norms included."""
    built = models.get_model(name, num_classes=num_classes)
    for path, value in built.state_dict().items():
        if "running" in path:
            value.uniform_(0.5, 1.5)
    return built


def answers(model: nn.Module) -> Tensor:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model.eval()(images)


def fit(found: dict[str, Tensor], model: nn.Module, head: str, name: str = "the network") -> tuple[dict, str]:
    return fit_weights(found, model.state_dict(), head, (), "weights.pth", name)


def load(found: dict[str, Tensor], model: nn.Module, head: str) -> str:
    """Give a network what it takes of a file; returns what is said of it."""
    taken, sentence = fit(found, model, head)
    assert all(value.dtype == model.state_dict()[name].dtype for name, value in taken.items())
    unfitting = model.load_state_dict(taken, strict=False)
    assert unfitting.unexpected_keys == []
    assert {name for name in unfitting.missing_keys if not name.endswith("num_batches_tracked")} <= {
        name for name in model.state_dict() if name.startswith(head)
    }
    return sentence


def refusal(run: Callable, *arguments) -> str:
    with pytest.raises(LoupeError) as caught:
        run(*arguments)
    return str(caught.value)


def as_zip(weights: dict, path: Path) -> None:
    torch.save(weights, path)


def as_zip_without_checksums(weights: dict, path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights, path)
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip()


def as_legacy(weights: dict, path: Path) -> None:
    torch.save(weights, path, _use_new_zipfile_serialization=False)


def as_zip_of_a_later_protocol(weights: dict, path: Path) -> None:
    torch.save(weights, path, pickle_protocol=3)


WAYS = [
    (as_zip_of_a_later_protocol, "weights.pth"),
    (as_zip, "weights.pth"),
    (as_zip, "weights.safetensors"),
    (as_zip, "weights"),
    (as_zip_without_checksums, "weights.pt"),
    (as_legacy, "weights.pth"),
    (as_legacy, "weights.safetensors"),
    (save_file, "weights.safetensors"),
    (save_file, "weights.pth"),
]
FORMATS = [as_zip, as_legacy, save_file]


@pytest.mark.parametrize(("save", "name"), WAYS)
def test_whatever_way_weights_were_saved_and_named_the_network_answers_as_before(tmp_path, save, name):
    before, after = network(), network()
    assert not torch.equal(answers(before), answers(after))
    save(before.state_dict(), tmp_path / name)
    found = read_weights(tmp_path / name)
    assert found.keys() == before.state_dict().keys()
    assert load(found, after, "classifier.1") == (
        "52 tensors of weights.pth were taken, its head for 7 classes among them."
    )
    assert torch.equal(answers(before), answers(after))


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_all_but_the_head_goes_into_a_network_for_other_classes(tmp_path, name):
    before, after = network(name, 1000), network(name, 5)
    torch.save(before.state_dict(), tmp_path / "weights.pth")
    head = HEADS[name]
    own_head = after.get_submodule(head).weight.clone()
    sentence = load(read_weights(tmp_path / "weights.pth"), after, head)
    count = len(after.state_dict()) - 2
    assert sentence == (
        f"{count} tensors of weights.pth were taken; its head for 1,000 classes was replaced by a new one for 5."
    )
    assert torch.equal(after.get_submodule(head).weight, own_head)
    for model in (before, after):
        model.set_submodule(head, nn.Identity())
    assert torch.equal(answers(before), answers(after))


class Lightning(nn.Module):
    """A network as the attribute of another module, as in Lightning and in many trainings."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "compile": torch.compile,
    "DataParallel of compile": lambda model: nn.DataParallel(torch.compile(model)),
    "an attribute": Lightning,
    "DataParallel of an attribute": lambda model: nn.DataParallel(Lightning(model)),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=list(WRAPPERS))
def test_the_prefixes_of_wrappers_are_removed(tmp_path, wrap):
    before, after = network("resnet18"), network("resnet18")
    torch.save(wrap(before).state_dict(), tmp_path / "weights.pth")
    found = read_weights(tmp_path / "weights.pth")
    assert found.keys().isdisjoint(after.state_dict())
    load(found, after, "fc")
    assert torch.equal(answers(before), answers(after))


def test_a_backbone_under_a_prefix_leaves_the_names_beside_it_as_they_are():
    before, after = network(), network()
    found = {
        name if name.startswith("classifier") else f"backbone.{name}": value
        for name, value in before.state_dict().items()
    }
    assert "its head for 7 classes among them" in load(found, after, "classifier.1")
    assert torch.equal(answers(before), answers(after))


def lightning(weights: dict, optimizer: dict) -> dict:
    prefixed = {f"model.{name}": value for name, value in weights.items()}
    return {"epoch": 3, "global_step": 7, "state_dict": prefixed, "optimizer_states": [optimizer], "callbacks": {}}


CHECKPOINTS: dict[str, Callable[[dict, dict], dict]] = {
    "of Lightning": lightning,
    "of torchvision's reference scripts": lambda weights, optimizer: {
        "model": weights,
        "optimizer": optimizer,
        "epoch": 3,
        "args": Namespace(lr=0.1, data_path="imagenet", device=torch.device("cuda"), opt=None),
    },
    "with numbers beside": lambda weights, optimizer: {
        "epoch": torch.tensor(3),
        "optimizer": optimizer,
        "net": weights,
    },
    "in a nest of a nest": lambda weights, optimizer: {"model": {"state_dict": weights, "classes": ["a"]}, "epoch": 3},
    "with an average beside": lambda weights, optimizer: {
        "ema": {name: value * 0 for name, value in weights.items()},
        "model_state_dict": weights,
    },
    "with a number among the weights": lambda weights, optimizer: {**weights, "epoch": 3, "model": "squeezenet"},
    "with a smaller nest beside": lambda weights, optimizer: {**weights, "params": {"lr": torch.tensor(0.1)}},
    "of parameters": lambda weights, optimizer: {name: nn.Parameter(value) for name, value in weights.items()},
}


@pytest.mark.parametrize("save", [as_zip, as_legacy])
@pytest.mark.parametrize("checkpoint", CHECKPOINTS.values(), ids=list(CHECKPOINTS))
def test_weights_are_found_in_a_checkpoint(tmp_path, checkpoint, save):
    before, after = network(), network()
    optimizer = torch.optim.Adam(before.parameters())
    before(torch.rand(2, 3, 64, 64)).sum().backward()
    optimizer.step()
    save(checkpoint(before.state_dict(), optimizer.state_dict()), tmp_path / "weights.pth")
    found = read_weights(tmp_path / "weights.pth")
    assert not any(value.requires_grad for value in found.values())
    load(found, after, "classifier.1")
    assert torch.equal(answers(before), answers(after))


def test_an_average_of_weights_is_taken_and_its_count_told(tmp_path):
    before, after = network(), network()
    torch.save(torch.optim.swa_utils.AveragedModel(before).state_dict(), tmp_path / "weights.pth")
    sentence = load(read_weights(tmp_path / "weights.pth"), after, "classifier.1")
    assert sentence.endswith("; it has 1 other that the network does not have: n_averaged.")
    assert torch.equal(answers(before), answers(after))


@pytest.mark.slow
@pytest.mark.parametrize("save", FORMATS)
def test_half_precision_is_brought_to_that_of_the_network(tmp_path, save):
    before, after = network("mobilenet_v3_small"), network("mobilenet_v3_small")
    # The counts of batches too, as a loop over all tensors does: they become infinite.
    for name, value in before.state_dict().items():
        if "num_batches_tracked" in name:
            value.fill_(100_000)
    half = {name: value.half() for name, value in before.state_dict().items()}
    save(half, tmp_path / "weights.pth")
    load(read_weights(tmp_path / "weights.pth"), after, "classifier.3")
    assert int(after.get_buffer("features.0.1.num_batches_tracked")) == 0
    before.load_state_dict({name: value.float() for name, value in half.items()})
    assert torch.equal(answers(before), answers(after))


@pytest.mark.slow
def test_counts_of_batches_may_be_missing():
    before, after = network("resnet18"), network("resnet18")
    found = {name: value for name, value in before.state_dict().items() if "num_batches_tracked" not in name}
    assert len(found) == 102
    assert load(found, after, "fc").startswith("102 tensors")
    assert torch.equal(answers(before), answers(after))


def small_densenet() -> nn.Module:
    return models.DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=3)


def small_vision_transformer() -> nn.Module:
    return models.VisionTransformer(64, 32, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3)


@pytest.mark.parametrize(
    ("build", "head", "former"),
    [
        (small_densenet, "classifier", {"norm1.": "norm.1.", "norm2.": "norm.2.", "conv1.": "conv.1."}),
        (small_vision_transformer, "heads.head", {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}),
    ],
)
def test_former_names_in_torchvisions_published_files_are_understood(build, head, former):
    before, after = build(), build()
    nn.init.normal_(before.get_submodule(head).weight)  # a transformer's begins with zeros

    def published(name: str) -> str:
        for now, then in former.items():
            name = name.replace(now, then)
        return f"module.{name}"

    found = {published(name): value for name, value in before.state_dict().items()}
    assert any(name not in after.state_dict() for name in (name.removeprefix("module.") for name in found))
    load(found, after, head)
    assert torch.equal(answers(before), answers(after))


@pytest.mark.slow
def test_a_network_that_asks_for_its_version_gets_it(tmp_path):
    before, after = network("mnasnet0_5"), network("mnasnet0_5")
    save_file(before.state_dict(), tmp_path / "weights.safetensors")
    found = read_weights(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="version"):  # what torchvision says of names alone
        after.load_state_dict(found)
    load(found, after, "classifier.1")
    assert torch.equal(answers(before), answers(after))


@pytest.mark.slow
def test_a_head_of_several_layers_is_taken_whole_or_not_at_all(tmp_path):
    def with_head(hidden: int, num_classes: int) -> nn.Module:
        model = network("resnet18")
        model.fc = nn.Sequential(
            nn.Linear(512, hidden), nn.ReLU(), nn.BatchNorm1d(hidden), nn.Linear(hidden, num_classes)
        )
        return model

    before, same = with_head(16, 4), with_head(16, 4)
    # safetensors sorts the names: the last layer is not the last there.
    save_file(before.state_dict(), tmp_path / "weights.safetensors")
    found = read_weights(tmp_path / "weights.safetensors")
    assert load(found, same, "fc").endswith("were taken, its head for 4 classes among them.")
    assert torch.equal(answers(before), answers(same))
    for other, words in {
        with_head(16, 3): "its head for 4 classes was replaced by a new one for 3.",
        with_head(32, 4): "its head for 4 classes has other layers, and was replaced by a new one.",
        network("resnet18", 4): "its head for 4 classes has other layers, and was replaced by a new one.",
    }.items():
        taken, sentence = fit(found, other, "fc")
        assert sentence == f"120 tensors of weights.pth were taken; {words}"
        assert not [name for name in taken if name.startswith("fc.")]


@pytest.mark.slow
def test_a_head_that_ends_in_a_batch_norm_has_as_many_classes_as_its_rows():
    model = network("resnet18")
    model.fc = nn.Sequential(nn.Linear(512, 4), nn.BatchNorm1d(4))
    assert load(model.state_dict(), model, "fc").endswith("were taken, its head for 4 classes among them.")


@pytest.mark.slow
def test_a_file_without_a_head_is_told():
    found = {name: value for name, value in network("resnet18").state_dict().items() if not name.startswith("fc.")}
    assert load(found, network("resnet18"), "fc") == (
        "120 tensors of weights.pth were taken; it has no head, and a new one for 7 classes begins untrained."
    )


def test_what_else_there_is_in_a_file_is_counted_and_the_first_three_named():
    model = network()
    extra = {f"aux{number}.weight": torch.zeros(1) for number in range(5)}
    found = {**model.state_dict(), **extra}
    assert fit(found, model, "classifier.1")[1].endswith(
        "; it has 5 others that the network does not have: aux0.weight, aux1.weight, aux2.weight and 2 more."
    )
    taken, sentence = fit_weights(found, model.state_dict(), "classifier.1", ("aux0.", "aux1", "aux4."), "w", "m")
    assert sentence.endswith("; it has 2 others that m does not have: aux2.weight and aux3.weight.")
    assert taken.keys() == model.state_dict().keys()


@pytest.mark.slow
def test_what_fits_is_not_copied(tmp_path):
    model = network("resnet18")
    as_zip(model.state_dict(), tmp_path / "weights.pth")
    found = read_weights(tmp_path / "weights.pth")
    taken, _ = fit(found, model, "fc")
    assert all(taken[name].data_ptr() == found[name].data_ptr() for name in model.state_dict())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists what a process has mapped")
@pytest.mark.parametrize("save", [as_zip, save_file])
def test_tensors_are_mapped_from_the_file(tmp_path, save):
    path = tmp_path / "weights.pth"
    save(network().state_dict(), path)
    found = read_weights(path)
    assert found
    assert str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.slow
def test_weights_of_another_network_are_refused_by_name_and_shape():
    bottlenecks, deeper = network("resnet50"), network("resnet34")
    found = network("resnet18").state_dict()
    assert refusal(fit, found, bottlenecks, "fc", "resnet50") == (
        "weights.pth does not fit resnet50: layer1.0.conv1.weight is 64 x 64 x 3 x 3 in the file and 64 x 64 x 1 x 1 "
        "in resnet50; layer1.1.conv1.weight is 64 x 64 x 3 x 3 in the file and 64 x 256 x 1 x 1 in resnet50; "
        f"missing: layer1.0.conv3.weight; and {differences(found, bottlenecks, 'fc.') - 3} more. "
        "Choose the network that it was made for."
    )
    assert refusal(fit, found, deeper, "fc", "resnet34") == (
        "weights.pth does not fit resnet34: missing: layer1.2.conv1.weight, layer1.2.bn1.weight, layer1.2.bn1.bias; "
        f"and {differences(found, deeper, 'fc.') - 3} more. Choose the network that it was made for."
    )
    one_less = {name: value for name, value in found.items() if name != "layer1.0.conv1.weight"}
    assert refusal(fit, one_less, network("resnet18"), "fc", "resnet18") == (
        "weights.pth does not fit resnet18: missing: layer1.0.conv1.weight. Choose the network that it was made for."
    )
    for shape, words in (((), "a single number"), ((3, 2), "3 x 2")):
        found["bn1.weight"] = torch.zeros(shape)
        assert f"resnet18: bn1.weight is {words} in the file and 64 in resnet18. Choose" in refusal(
            fit, found, network("resnet18"), "fc", "resnet18"
        )


def differences(found: dict[str, Tensor], model: nn.Module, head: str) -> int:
    """Count the tensors of a network, but its head and counts of batches, that a file has not, or in other shapes."""
    return sum(
        name not in found or found[name].shape != value.shape
        for name, value in model.state_dict().items()
        if not name.startswith(head) and "num_batches" not in name
    )


@pytest.mark.slow
def test_weights_without_a_name_of_the_network_are_refused():
    found = {"conv_stem.weight": torch.zeros(1), "fc\n.weight": torch.zeros(1)}
    assert refusal(fit, found, network("resnet18"), "fc", "resnet18") == (
        "weights.pth does not fit resnet18: none of its 2 tensors has the name of one of resnet18's (it begins with "
        "conv_stem.weight; resnet18 with conv1.weight). Choose the network that it was made for."
    )


def test_whole_numbers_do_not_take_the_place_of_fractions():
    found = network().state_dict()
    found["features.0.bias"] = found["features.0.bias"].to(torch.int8)
    assert "features.0.bias is int8 in the file and float32 in the network." in refusal(
        fit, found, network(), "classifier.1"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers_are_refused(value):
    found = network().state_dict()
    found["features.0.bias"][3] = value
    assert refusal(fit, found, network(), "classifier.1").startswith(
        "features.0.bias in weights.pth has values that are not numbers, or infinite: the file is damaged, or"
    )
    found["features.0.bias"][3] = 0
    found["classifier.1.bias"][3] = value  # of a head that is not taken
    load(found, network(num_classes=3), "classifier.1")


def as_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [as_zip, as_legacy, as_pickle])
@pytest.mark.parametrize("beside_weights", [False, True])
def test_code_in_a_file_is_not_run(tmp_path, trap, save, beside_weights):
    path = tmp_path / "weights.pth"
    save({**network().state_dict(), "extra": trap} if beside_weights else trap, path)
    message = refusal(read_weights, path)
    assert str(path) in message
    assert "Nothing in it was run. Where it was made, save the weights with torch.save(model.state_dict()" in message
    assert ("a pickle that torch.save has not written" in message) == (save is as_pickle)
    assert not trap.sprung
    content = pickle.loads(path.read_bytes()) if save is as_pickle else torch.load(path, weights_only=False)
    (content["extra"] if beside_weights else content).close()
    assert trap.sprung, "the trap does not work"


@pytest.mark.parametrize("save", [as_zip, as_legacy])
@pytest.mark.parametrize("nest", [lambda model: model, lambda model: {"model": model, "epoch": 3}])
def test_a_whole_model_is_refused_with_what_to_do(tmp_path, nest, save):
    path = tmp_path / "weights.pth"
    save(nest(network()), path)
    assert refusal(read_weights, path) == (
        f"{path} holds more than weights (it needs torchvision.models.squeezenet.SqueezeNet), such as a whole pickled "
        "model, or is damaged. Nothing in it was run. Where it was made, save the weights with "
        "torch.save(model.state_dict(), ...) and choose that file."
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_archive_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)
    assert "is a TorchScript archive: a program, and nothing in it was run." in refusal(read_weights, path)


def write_archive(path: Path, name: str, **options) -> None:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr(name, b"0" * 1000)


OTHER_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: path.touch(), "is empty. Get a whole copy of it."),
    "text": (lambda path: path.write_text("conv1.weight: 0.5\n" * 9), "is no file of weights, but something else."),
    "settings": (lambda path: path.write_text('settings{"a": 1}'), "is no file of weights, but something else."),
    "a byte": (lambda path: path.write_bytes(b"{"), "is no file of weights, but something else."),
    "a JPEG": (lambda path: Image.new("RGB", (9, 9)).save(path, "JPEG"), "is no file of weights, but a JPEG picture."),
    "a PNG": (lambda path: Image.new("RGB", (9, 9)).save(path, "PNG"), "is no file of weights, but a PNG picture."),
    "Keras": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "but a Keras or HDF5 file. Choose"),
    "Git LFS": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "but a pointer of Git LFS in its place. Fetch the file itself with git lfs pull.",
    ),
    "a web page": (lambda path: path.write_text("<!DOCTYPE html>"), "but a web page. Download the file itself."),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"0" * 99)), "but a gzip archive. Unpack it first."),
    "a zip": (lambda path: write_archive(path, "notes.txt"), "a zip archive, but not one that torch.save has written."),
    "a packed zip": (
        lambda path: write_archive(path, "weights/data.pkl", compression=zipfile.ZIP_DEFLATED),
        "a zip archive, but not one that torch.save has written.",
    ),
    "a folder": (lambda path: path.mkdir(), "is a folder. Choose a file of weights: .pth or .pt of torch, or"),
    "a pipe": (os.mkfifo, "is not a regular file."),
    "no file": (lambda path: None, "There is no file "),
    "no tensors": (
        lambda path: torch.save({"epoch": 3, "state_dict": {"lr": 0.1}, "args": Namespace()}, path),
        "has no tensors by name, neither directly nor as its state_dict. It holds: epoch, state_dict and args. Where",
    ),
    "a tensor without a name": (lambda path: torch.save(torch.zeros(3), path), "has no tensors by name"),
    "itself": (lambda path: torch.save(endless(), path), "has no tensors by name"),
    "no values": (lambda path: torch.save({"a": torch.zeros(3, device="meta")}, path), "has no tensors by name"),
    "an empty safetensors": (lambda path: save_file({}, path), "has no tensors by name"),
}


def endless() -> dict:
    content: dict = {}
    content["model"] = content
    return content


@pytest.mark.parametrize(("write", "words"), OTHER_FILES.values(), ids=list(OTHER_FILES))
def test_what_is_no_file_of_weights_is_refused_in_a_sentence(tmp_path, write, words):
    path = tmp_path / "weights.pth"
    write(path)
    message = refusal(read_weights, path)
    assert str(path) in message
    assert words in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path):
    path = tmp_path / "weights.pth"
    as_zip(network().state_dict(), path)
    path.chmod(0)
    assert refusal(read_weights, path) == f"{path} may not be read. Change its permissions, or copy it."


@pytest.mark.parametrize("save", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99, 0.99999])
def test_a_file_that_was_cut_short_is_refused(tmp_path, save, share):
    path = tmp_path / "weights.pth"
    save(network().state_dict(), path)
    os.truncate(path, int(path.stat().st_size * share))
    message = refusal(read_weights, path)
    assert message.startswith(f"{path} is damaged or cut short (")
    assert message.endswith("). Nothing in it was run. Get a whole copy of it.")


@pytest.mark.slow
@pytest.mark.parametrize("save", FORMATS)
def test_of_a_damaged_file_comes_a_refusal_or_what_was_in_it(tmp_path, save):
    weights = {"conv.weight": torch.randn(4, 3, 3, 3), "conv.bias": torch.randn(4), "fc.weight": torch.randn(2, 4)}
    path, damaged = tmp_path / "weights.pth", tmp_path / "damaged.pth"
    save(weights, path)
    content = path.read_bytes()
    choose = random.Random(0)
    read = 0
    for attempt in range(200):
        if attempt % 2:
            damaged.write_bytes(content[: choose.randrange(len(content))])
        else:
            bit = choose.randrange(8 * len(content))
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            damaged.write_bytes(flipped)
        try:
            found = read_weights(damaged)
            if save is as_zip:  # which has checksums
                assert found.keys() == weights.keys()
                assert all(torch.equal(found[name], weights[name]) for name in weights)
            taken, _ = fit_weights(found, weights, "fc", (), "damaged.pth", "the network")
        except LoupeError:
            continue
        assert not attempt % 2, "a file that was cut short was read"
        assert all(value.shape == weights[name].shape and value.isfinite().all() for name, value in taken.items())
        assert taken.keys() >= {"conv.weight", "conv.bias"}
        read += 1
    assert 0 < read < 100


def test_a_damaged_number_that_asks_for_endless_memory_is_damage(tmp_path):
    path = tmp_path / "weights.pth"
    as_legacy({"weight": torch.zeros(30, 4)}, path)
    content = path.read_bytes()
    for sound, broken in (
        (b"K\x1eK\x04", b"J\xff\xff\xff\x7fK\x04"),  # 30 rows
        (b"K\x04K\x01\x86", b"M\x00\x80K\x01\x86"),  # that begin 4 numbers apart
    ):
        assert content.count(sound) == 1
        content = content.replace(sound, broken)
    path.write_bytes(content)
    assert "is damaged or cut short (RuntimeError)" in refusal(read_weights, path)


WITHIN_A_LIMIT = """
import resource, sys
from pathlib import Path
from engine.base.machine import is_out_of_memory
from engine.networks.weight_files import read_weights

(used,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize")]
resource.setrlimit(resource.RLIMIT_AS, (int(used) * 1024 + 30_000_000,) * 2)
try:
    read_weights(Path(sys.argv[1]))
except Exception as error:
    print(is_out_of_memory(error))
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a process to a limit of memory")
def test_a_lack_of_memory_is_not_taken_for_damage(tmp_path):
    path = tmp_path / "weights.pth"
    as_legacy({"weight": torch.zeros(100_000_000, dtype=torch.uint8)}, path)
    command = [sys.executable, "-c", WITHIN_A_LIMIT, str(path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"
