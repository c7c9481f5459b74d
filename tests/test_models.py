import pytest
import torch
from torch import nn

from engine.errors import LoupeError
from engine.models import MODELS, WholeConv2d, build_model, count_parameters


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("image_shape", "num_classes"),
    [((28, 28, 1), 10), ((32, 32, 3), 4), ((30, 45, 1), 2), ((61, 28, 3), 7)],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else f"{value} classes",
)
def test_a_model_maps_images_to_a_logit_for_each_class(name, image_shape, num_classes):
    height, width, channels = image_shape
    model = build_model(name, image_shape, num_classes)
    images = torch.rand(3, channels, height, width)
    logits = model(images)
    assert logits.shape == (3, num_classes)
    # Logits, not probabilities, and of the image at hand.
    assert logits.min() < 0 or logits.max() > 1
    assert not torch.equal(model.eval()(images), model(images.flip(0)))
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["convnet", "mlp"])
@pytest.mark.parametrize("image_shape", [(1, 1, 1), (1, 1, 3), (8, 8, 1), (2, 9, 3)])
def test_small_images_will_do(name, image_shape):
    height, width, channels = image_shape
    assert build_model(name, image_shape, 5)(torch.rand(2, channels, height, width)).shape == (2, 5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (27, 28), (28, 27), (1, 1)])
def test_lenet5_refuses_images_that_it_would_shrink_to_nothing(height, width):
    with pytest.raises(LoupeError) as refused:
        build_model("lenet5", (height, width, 1), 10)
    assert str(refused.value) == (
        f"lenet5 needs images of at least 28 x 28 pixels, but these are {width} x {height}. "
        "Choose the model convnet or mlp, which take any size."
    )


def test_lenet5_has_the_parameters_of_lenet5():
    convolutions = 6 * (5 * 5 + 1) + 16 * (6 * 5 * 5 + 1) + 120 * (16 * 5 * 5 + 1)
    layers = 84 * (120 + 1) + 10 * (84 + 1)
    assert convolutions + layers == 61_706
    assert count_parameters(build_model("lenet5", (28, 28, 1), 10)) == 61_706


def test_the_same_seed_gives_the_same_weights():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(build_model("lenet5", (28, 28, 1), 10).parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("bias", [True, False])
def test_whole_convolution_is_the_convolution(bias):
    whole, plain = WholeConv2d(4, 6, (5, 3), bias=bias), nn.Conv2d(4, 6, (5, 3), bias=bias)
    plain.load_state_dict(whole.state_dict())
    ours = torch.randn(7, 4, 5, 3).to(memory_format=torch.channels_last).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()

    weights = torch.randn(7, 6, 1, 1)
    (whole(ours) * weights).sum().backward()
    (plain(theirs) * weights).sum().backward()

    torch.testing.assert_close(whole(ours), plain(theirs), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-5)
    for our, their in zip(whole.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(our.grad, their.grad, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "whole"), [(28, True), (31, True), (32, False)])
def test_lenet5_uses_it_only_where_it_is_the_convolution(size, whole):
    model = build_model("lenet5", (size, size, 1), 10)
    assert any(isinstance(layer, WholeConv2d) for layer in model) == whole
    assert model(torch.rand(1, 1, size, size)).shape == (1, 10)


def test_an_unknown_model_is_answered_with_the_known_ones():
    with pytest.raises(LoupeError) as refused:
        build_model("resnet", (28, 28, 1), 10)
    assert str(refused.value) == "There is no model 'resnet'. Known models: convnet, lenet5 and mlp."
