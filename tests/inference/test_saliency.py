import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from engine.base.errors import LoupeError
from engine.inference.classifier import Classifier
from engine.inference.saliency import overlay, row_gradients, saliency
from engine.networks.models import build_model
from engine.networks.preprocessing import Preprocessing

DARK, BRIGHT = 0, 1


def patches(count: int, seed: int, places: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw pictures of noise, 28 x 28, with a patch of 6 x 6 in one of some places that is dark or bright.

    Returns them with their classes and the top left corners of their patches.
    """
    random_state = np.random.default_rng(seed)
    pictures = random_state.integers(0, 120, (count, 28, 28, 1))
    labels = random_state.integers(0, 2, count)
    corners = random_state.choice(places, (count, 2))
    for picture, label, (row, column) in zip(pictures, labels, corners, strict=True):
        patch = picture[row : row + 6, column : column + 6]
        patch[:] = patch + 130 if label == BRIGHT else patch // 8
    return pictures.astype(np.uint8), labels, corners


def trained_on_patches(
    name: str, places: list[int], count: int, epochs: int, channels: int = 1, weight_decay: float = 0.0
) -> Classifier:
    """Train a network for a second to tell dark patches from bright ones."""
    torch.manual_seed(0)
    model = build_model(name, (28, 28, channels), 2)
    classifier = Classifier(
        model, Preprocessing((28, 28, 1), (0.25,) * channels, (0.2,) * channels, ("dark", "bright"))
    )
    pictures, labels, _ = patches(count, 0, places)
    inputs, targets = classifier.preprocess(torch.from_numpy(pictures)), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3, weight_decay=weight_decay)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(50):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    optimizer.zero_grad()
    model.eval()
    return classifier


EVERYWHERE = list(range(23))


@pytest.fixture(scope="module")
def convnet() -> Classifier:
    return trained_on_patches("convnet", EVERYWHERE, count=800, epochs=3)


def untrained(name: str, side: int, channels: int = 3, num_classes: int = 5) -> Classifier:
    torch.manual_seed(0)
    model = build_model(name, (side, side, channels), num_classes).to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():  # batch norm has figures of what the layers before it make, or a deep network's maps vanish
        model(torch.randn(4, channels, side, side))
    classes = tuple("abcdefghij"[:num_classes])
    return Classifier(model, Preprocessing((side, side, 1), (0.5,) * channels, (0.2,) * channels, classes))


def noise(side: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, channels), dtype=np.uint8)


def share_on_patch(heat: np.ndarray, corner: np.ndarray, around: int = 0) -> float:
    """The share of the heat that lies on the patch, and so many pixels around it."""
    (row, column), most = corner, 6 + around
    return float(heat[max(0, row - around) : row + most, max(0, column - around) : column + most].sum() / heat.sum())


# Where the answer is known


@pytest.mark.slow
def test_grad_cam_finds_what_decides_wherever_it_is(convnet: Classifier) -> None:
    pictures, labels, corners = patches(40, 1, EVERYWHERE)
    hits, shares = [], []
    for picture, label, corner in zip(pictures, labels, corners, strict=True):
        found = saliency(convnet, picture, int(label))
        assert (found.layer, found.side) == ("8", (7, 7))
        assert (found.heat.shape, found.heat.dtype) == ((28, 28), np.float32)
        assert (found.heat.min() >= 0, found.heat.max()) == (True, 1)
        peak = np.array(np.unravel_index(found.heat.argmax(), found.heat.shape))
        hits.append((np.abs(peak - (corner + 2.5)) < 5).all())  # on it, or a pixel or two beside: maps are 7 x 7
        shares.append(share_on_patch(found.heat, corner, around=2))
    assert np.mean(hits) > 0.9
    # By chance it is the part of the picture that a patch and 2 pixels around it are, at most an eighth.
    assert np.mean(shares) > 0.4


@pytest.mark.slow
def test_heat_of_the_other_class_is_elsewhere(convnet: Classifier) -> None:
    pictures, labels, corners = patches(40, 2, EVERYWHERE)
    for picture, label, corner in zip(pictures, labels, corners, strict=True):
        other = saliency(convnet, picture, 1 - int(label)).heat
        assert not np.array_equal(other, saliency(convnet, picture, int(label)).heat)
        assert not other.any() or share_on_patch(other, corner) < 0.1


@pytest.mark.slow
def test_without_a_convolution_the_gradient_of_each_pixel_tells() -> None:
    # Its initial weights for pixels that decide nothing would stay, but for the decay.
    classifier = trained_on_patches("mlp", [11], count=1500, epochs=5, channels=3, weight_decay=3e-3)
    pictures, labels, corners = patches(40, 1, [11])
    found = [saliency(classifier, picture, int(label)) for picture, label in zip(pictures, labels, strict=True)]
    assert {(one.layer, one.side, one.heat.max()) for one in found} == {(None, None, 1)}
    shares = [share_on_patch(one.heat, corner) for one, corner in zip(found, corners, strict=True)]
    assert np.mean(shares) > 5 * 36 / 784  # by chance it is the patch's part of the picture


# What it is, by definition


def test_heat_is_grad_cam_as_defined() -> None:
    classifier = untrained("lenet5", 28, channels=1)
    model, picture = classifier.model, noise(28)
    inputs = classifier.preprocess(torch.from_numpy(picture[np.newaxis]))
    for target in range(5):
        maps = model[:5](inputs).detach().requires_grad_()  # the second convolution's, after its ReLU
        model[5:](maps)[0, target].backward()
        heat = torch.einsum("khw,k->hw", maps[0], maps.grad[0].mean(dim=(1, 2))).relu()
        heat = functional.interpolate(heat[None, None], size=(28, 28), mode="bilinear")[0, 0].detach().numpy()
        found = saliency(classifier, picture, target)
        assert (found.layer, found.side) == ("3", (10, 10))
        np.testing.assert_allclose(found.heat, heat / heat.max() if heat.any() else heat, atol=1e-5)


def numeric_gradient(classifier: Classifier, inputs: torch.Tensor, target: int) -> np.ndarray:
    """The change of a logit with each number that the model is given, by small steps in float64."""
    model = copy.deepcopy(classifier.model).double()
    values = inputs.double().flatten()
    with torch.no_grad():
        steps = 1e-4 * torch.eye(len(values), dtype=torch.float64)
        up, down = (model((values + step).view(-1, *inputs.shape[1:]))[:, target] for step in (steps, -steps))
    return ((up - down) / 2e-4).view(inputs.shape[1:]).numpy()


def test_input_gradients_are_those_of_small_steps() -> None:
    classifier = untrained("mlp", 8)
    inputs = classifier.preprocess(torch.from_numpy(noise(8)[np.newaxis]))
    expected = np.abs(numeric_gradient(classifier, inputs, 3)).max(axis=0)
    found = saliency(classifier, noise(8), 3)
    np.testing.assert_allclose(found.heat, expected / expected.max(), rtol=1e-3)


def of_rows() -> Classifier:
    torch.manual_seed(0)
    std = (0.5, 2.0, 10.0, 1.0)
    return Classifier(build_model("mlp", (4,), 3), Preprocessing((4,), (1.0, -1.0, 0.0, 5.0), std, tuple("abc")))


def test_gradients_of_a_row_are_those_of_small_steps_with_their_signs() -> None:
    classifier, row = of_rows(), np.array([1.4, -2.0, 3.0, 4.5], np.float32)
    row.setflags(write=False)
    inputs = classifier.preprocess(torch.from_numpy(row.copy()[np.newaxis]))
    found = [row_gradients(classifier, row, target) for target in range(3)]
    assert {(one.shape, one.dtype) for one in found} == {((4,), np.dtype(np.float32))}
    np.testing.assert_allclose(found, [numeric_gradient(classifier, inputs, t) for t in range(3)], rtol=1e-3)
    assert np.array(found).min() < 0 < np.array(found).max()
    assert all(parameter.grad is None for parameter in classifier.model.parameters())


def test_a_row_has_no_heat() -> None:
    with pytest.raises(LoupeError, match="classifies rows of 4 numbers, not pictures"):
        saliency(of_rows(), np.zeros(4, np.float32), 0)


# Networks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "layer", "maps"),
    [
        ("convnet-fast", 28, "11", 4),
        ("resnet-fast", 28, "11.0", 7),  # the last one's maps are pooled to 3 x 3
        ("resnet18", 128, "layer4.1.conv2", 4),
        ("squeezenet1_1", 96, "features.12.expand3x3", 5),
        pytest.param("mobilenet_v3_small", 128, "features.12.0", 4, marks=pytest.mark.sweep),
        pytest.param("densenet121", 128, "features.denseblock4.denselayer16.conv2", 4, marks=pytest.mark.sweep),
        pytest.param("googlenet", 128, "inception5b.branch4.1.conv", 4, marks=pytest.mark.sweep),
        pytest.param("convnext_tiny", 128, "features.7.2.block.0", 4, marks=pytest.mark.sweep),
        ("swin_t", 64, None, None),  # its convolution cuts the picture into patches
        ("resnet18", 4, None, None),
    ],
)
def test_networks_of_every_kind_have_heat(name: str, side: int, layer: str | None, maps: int | None) -> None:
    classifier, picture = untrained(name, side), noise(side + 7)
    found = [saliency(classifier, picture, target) for target in range(5)]
    assert {(one.layer, one.side) for one in found} == {(layer, maps and (maps, maps))}
    assert all(one.heat.shape == (side, side) and one.heat.min() >= 0 for one in found)
    assert {float(one.heat.max()) for one in found} <= {0, 1}
    assert len({one.heat.tobytes() for one in found}) > 1  # classes differ


class Shared(nn.Module):
    """One convolution that runs twice, on what it made itself, and changes it in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 2)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        once = self.activation(self.again(self.activation(self.first(input))))
        twice = self.activation(self.again(once))
        twice += once
        return self.head(twice.mean(dim=(2, 3)))


def test_of_a_convolution_that_runs_twice_the_last_time_counts() -> None:
    torch.manual_seed(0)
    model = Shared()
    classifier = Classifier(model, Preprocessing((12, 12, 1), (0.5,), (0.2,), ("a", "b")))
    with torch.no_grad():
        once = model.activation(model.again(model.activation(model.first(classifier.preprocess(as_batch(noise(12)))))))
        maps = model.activation(model.again(once))
        heats = [torch.einsum("khw,k->hw", maps[0], weights).relu().numpy() for weights in model.head.weight]
    assert any(heat.any() for heat in heats)
    for target, heat in enumerate(heats):
        found = saliency(classifier, noise(12), target)
        assert (found.layer, found.side) == ("again", (12, 12))
        np.testing.assert_allclose(found.heat, heat / max(heat.max(), 1e-30), atol=1e-5)


def as_batch(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture[np.newaxis])


@pytest.mark.parametrize("name", ["lenet5", "mlp"])
def test_a_dead_network_has_no_heat(name: str) -> None:
    classifier = untrained(name, 28, channels=1)
    with torch.no_grad():
        for parameter in classifier.model.parameters():
            parameter.zero_()
    heat = saliency(classifier, noise(28), 0).heat
    np.testing.assert_array_equal(heat, np.zeros((28, 28), np.float32))


def test_a_network_that_diverged_is_told() -> None:
    classifier = untrained("lenet5", 28, channels=1)
    with torch.no_grad():
        classifier.model[-1].weight.fill_(torch.nan)
    with pytest.raises(LoupeError, match="its training has diverged"):
        saliency(classifier, noise(28), 0)


# What others see of it


@pytest.mark.slow
def test_nothing_is_left_behind_on_the_model(convnet: Classifier) -> None:
    picture = patches(1, 3, EVERYWHERE)[0][0]
    before, state = convnet.classify(picture)[0], {k: v.clone() for k, v in convnet.model.state_dict().items()}
    with torch.inference_mode():  # as others may be in
        first = saliency(convnet, picture, 0)
    np.testing.assert_array_equal(saliency(convnet, picture, 0).heat, first.heat)
    assert not any(module._forward_hooks or module.training for module in convnet.model.modules())
    assert all(parameter.grad is None for parameter in convnet.model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in convnet.model.state_dict().items())
    np.testing.assert_array_equal(convnet.classify(picture)[0], before)


@pytest.mark.slow
def test_two_at_once_get_what_one_gets(convnet: Classifier) -> None:
    pictures, _, _ = patches(20, 4, EVERYWHERE)
    asked = [(picture, target) for picture in pictures for target in (DARK, BRIGHT)]
    alone = [saliency(convnet, *one).heat for one in asked]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda one: saliency(convnet, *one).heat, asked))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


# Heat over the picture


@pytest.mark.parametrize("channels", [1, 3])
def test_without_strength_or_heat_the_picture_is_as_it_was(channels: int) -> None:
    picture, heat = noise(9, channels), np.linspace(0, 1, 81, dtype=np.float32).reshape(9, 9)
    as_colours = np.repeat(picture, 3, axis=2) if channels == 1 else picture
    for plain in (overlay(picture, heat, 0.0), overlay(picture, np.zeros_like(heat), 1.0)):
        assert (plain.shape, plain.dtype) == ((9, 9, 3), np.uint8)
        np.testing.assert_array_equal(plain, as_colours)
    np.testing.assert_array_equal(overlay(picture, heat, 1.0)[0, 0], as_colours[0, 0])


def test_more_heat_is_lighter_and_hides_more() -> None:
    def lightness(colours: np.ndarray) -> np.ndarray:
        return ((colours / 255) ** 2.2) @ [0.2126, 0.7152, 0.0722]

    heat = np.linspace(0, 1, 256, dtype=np.float32)[np.newaxis]
    on_black, on_white = (overlay(np.full((1, 256, 1), grey, np.uint8), heat, 1.0) for grey in (0, 255))
    assert (np.diff(lightness(on_black)[0]) > -0.002).all()
    assert lightness(on_black)[0, -1] > 0.9
    np.testing.assert_array_equal(on_black[0, -1], on_white[0, -1])  # nothing is seen through the greatest heat
    hidden = on_white.astype(int) - on_black
    assert (np.diff(hidden[0].max(axis=1)) <= 1).all()
    half = overlay(np.full((1, 256, 1), 100, np.uint8), heat, 0.5).astype(int)
    whole = overlay(np.full((1, 256, 1), 100, np.uint8), heat, 1.0).astype(int)
    np.testing.assert_allclose(2 * (half - 100), whole - 100, atol=2)
