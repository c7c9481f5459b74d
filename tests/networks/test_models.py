from collections.abc import Iterable

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import get_model

from engine.base.errors import LoupeError
from engine.networks.models import (
    MODELS,
    WholeConv2d,
    backbone_of,
    build_model,
    count_parameters,
    feature_count,
    head_path,
    layer_table,
    sharing_copy,
)
from engine.recipes.backbones import BACKBONES

CIFAR = (32, 32, 3)
DIGITS = (28, 28, 1)


def after_some_training(model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """Move batch norm's statistics and weights away from where they start."""
    height, width, channels = image_shape
    for _ in range(2):
        model.zero_grad()
        model(torch.rand(4, channels, height, width)).square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.01 * parameter.grad)
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("image_shape", "num_classes"),
    [((28, 28, 1), 10), ((32, 32, 3), 4), ((30, 45, 1), 2), ((61, 28, 3), 7), ((28, 28, 3), 100)],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else f"{value} classes",
)
def test_a_model_maps_images_to_a_logit_for_each_class(name, image_shape, num_classes):
    height, width, channels = image_shape
    model = build_model(name, image_shape, num_classes)
    images = torch.rand(3, channels, height, width)
    logits = model(images)
    assert logits.shape == (3, num_classes)
    # Logits, not probabilities, and of the image at hand.
    assert not torch.allclose(logits.sum(1), torch.ones(3)) and not torch.allclose(logits.exp().sum(1), torch.ones(3))
    assert not torch.equal(model.eval()(images), model(images.flip(0)))
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["convnet", "mlp", "resnet-fast"])
@pytest.mark.parametrize("image_shape", [(1, 1, 1), (1, 1, 3), (8, 8, 1), (2, 9, 3)])
def test_small_images_will_do(name, image_shape):
    height, width, channels = image_shape
    assert build_model(name, image_shape, 5)(torch.rand(2, channels, height, width)).shape == (2, 5)


SMALLEST = {"lenet5": 28, "lenet": 16, "cifar-net": 16, "convnet-fast": 20}


@pytest.mark.parametrize(("less_high", "less_wide"), [(20, 20), (1, 0), (0, 1)])
@pytest.mark.parametrize("name", SMALLEST)
def test_images_that_a_model_would_shrink_to_nothing_are_refused(name, less_high, less_wide):
    side = SMALLEST[name]
    height, width = max(1, side - less_high), max(1, side - less_wide)
    with pytest.raises(LoupeError) as refused:
        build_model(name, (height, width, 1), 10)
    assert str(refused.value) == (
        f"{name} needs images of at least {side} x {side} pixels, but these are {width} x {height}. "
        "Choose the model convnet or mlp, which take any size."
    )


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_images_that_are_not_refused_fit(name):
    side = SMALLEST[name]
    assert build_model(name, (side, side, 1), 10)(torch.rand(2, 1, side, side)).shape == (2, 10)


@pytest.mark.parametrize(("name", "side"), [("resnet-fast", 8), ("convnet-fast", 20)])
def test_a_batch_of_one_small_image_can_be_trained_on(name, side):
    model = build_model(name, (side, side, 1), 10).train()
    assert model(torch.rand(1, 1, side, side)).isfinite().all()


def test_lenet5_has_the_parameters_of_lenet5():
    convolutions = 6 * (5 * 5 + 1) + 16 * (6 * 5 * 5 + 1) + 120 * (16 * 5 * 5 + 1)
    layers = 84 * (120 + 1) + 10 * (84 + 1)
    assert convolutions + layers == 61_706
    assert count_parameters(build_model("lenet5", (28, 28, 1), 10)) == 61_706


@pytest.mark.parametrize(
    ("name", "image_shape", "count"),
    [
        ("lenet", DIGITS, 431_080),
        ("cifar-net", CIFAR, 62_006),
    ],
)
def test_a_tutorials_network_has_the_parameters_of_the_tutorials(name, image_shape, count):
    assert count_parameters(build_model(name, image_shape, 10)) == count


def test_the_fast_networks_have_the_parameters_of_their_widths():
    convolutions = 25 * 16 + 9 * (16 * 32 + 32 * 64 + 64 * 64)
    assert convolutions + 2 * (16 + 32 + 64 + 64) + 10 * (4 * 4 * 64 + 1) == 70_906
    assert count_parameters(build_model("convnet-fast", DIGITS, 10)) == 70_906

    convolutions = 9 * (3 * 16 + 16 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128)
    assert convolutions + 2 * (16 + 32 + 2 * 64 + 2 * 128) + 10 * 128 == 283_664
    assert count_parameters(build_model("resnet-fast", CIFAR, 10)) == 283_664
    assert count_parameters(build_model("resnet-fast", DIGITS, 10)) == 283_664 - 2 * 9 * 16


def lenet_as_written_in_the_tutorial() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 20, (5, 5)), nn.ReLU(), nn.MaxPool2d((2, 2), (2, 2))),
        *(nn.Conv2d(20, 50, (5, 5)), nn.ReLU(), nn.MaxPool2d((2, 2), (2, 2))),
        *(nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10)),
    )


def cifar_net_as_written_in_the_tutorial() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2, 2)),
        *(nn.Flatten(), nn.Linear(16 * 5 * 5, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


@pytest.mark.parametrize(
    ("name", "image_shape", "reference"),
    [("lenet", DIGITS, lenet_as_written_in_the_tutorial), ("cifar-net", CIFAR, cifar_net_as_written_in_the_tutorial)],
)
def test_a_tutorials_network_is_the_tutorials(name, image_shape, reference):
    ours, theirs = build_model(name, image_shape, 10), reference()
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        their.data.copy_(our.data)  # which broadcasts
        assert our.shape == their.shape
    height, width, channels = image_shape
    images = torch.randn(5, channels, height, width)
    assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize(("name", "image_shape"), [("resnet-fast", CIFAR), ("convnet-fast", DIGITS)])
def test_a_fast_network_computes_what_its_description_says(name, image_shape):
    height, width, channels = image_shape
    model = after_some_training(build_model(name, image_shape, 10), image_shape).eval()
    weights = iter([*model.state_dict().values()])

    def block(images: torch.Tensor, pool: bool = False, padding: int = 1) -> torch.Tensor:
        images = functional.conv2d(images, next(weights), padding=padding)
        weight, bias, mean, variance, _ = (next(weights) for _ in range(5))
        normal = functional.batch_norm(images, mean, variance, weight, bias).relu()
        if not pool:
            return normal
        # The usual order, pooling last, is the same function where batch norm's weights are not negative.
        assert (weight > 0).all()
        return functional.max_pool2d(normal, 2)

    images = torch.randn(5, channels, height, width)
    if name == "convnet-fast":
        last = block(block(block(block(images, pool=True, padding=0)), pool=True), padding=0)
        logits = functional.linear(last.flatten(1), next(weights), next(weights))
    else:
        middle = block(block(block(images, pool=True), pool=True))
        last = block(middle + block(middle), pool=True)
        last = last + block(last)
        logits = functional.linear(last.amax((2, 3)), next(weights)) / 8
    assert next(weights, None) is None
    torch.testing.assert_close(model(images), logits)


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
    near = "resnet50, resnet34 and resnet18"
    every = "python -m engine models lists all 87, from convnet to wide_resnet50_2"
    assert str(refused.value) == f"There is no model 'resnet'. The nearest in name: {near}. {every}."


def test_rows_of_a_table_take_a_small_mlp():
    model = build_model("mlp", (4,), 3)
    assert [tuple(parameter.shape) for parameter in model.parameters()] == [(8, 4), (8,), (3, 8), (3,)]
    rows = torch.randn(5, 4)
    first, rectify, last = model
    assert isinstance(rectify, nn.ReLU)
    expected = (rows @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(model(rows), expected)
    assert layer_table(model, (4,)) == [
        {"layer": "0: linear 8", "output": (8,), "parameters": 40},
        {"layer": "1: ReLU", "output": (8,), "parameters": 0},
        {"layer": "2: linear 3", "output": (3,), "parameters": 27},
    ]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mlp"])
def test_a_network_of_images_is_refused_for_rows_of_a_table(name):
    with pytest.raises(LoupeError) as refused:
        build_model(name, (4,), 3)
    assert str(refused.value) == (
        f"{name} needs images, but this dataset is a table of 4 numbers a row. Choose the model mlp."
    )


def test_a_table_of_layers_says_what_runs():
    assert layer_table(build_model("cifar-net", CIFAR, 10), CIFAR) == [
        {"layer": "0: convolution 6@5x5", "output": (6, 28, 28), "parameters": 456},
        {"layer": "1: ReLU", "output": (6, 28, 28), "parameters": 0},
        {"layer": "2: max pooling 2", "output": (6, 14, 14), "parameters": 0},
        {"layer": "3: convolution 16@5x5", "output": (16, 10, 10), "parameters": 2416},
        {"layer": "4: ReLU", "output": (16, 10, 10), "parameters": 0},
        {"layer": "5: max pooling 2", "output": (16, 5, 5), "parameters": 0},
        {"layer": "6: flatten", "output": (400,), "parameters": 0},
        {"layer": "7: linear 120", "output": (120,), "parameters": 48_120},
        {"layer": "8: ReLU", "output": (120,), "parameters": 0},
        {"layer": "9: linear 84", "output": (84,), "parameters": 10_164},
        {"layer": "10: ReLU", "output": (84,), "parameters": 0},
        {"layer": "11: linear 10", "output": (10,), "parameters": 850},
    ]
    residual = [row["layer"] for row in layer_table(build_model("resnet-fast", CIFAR, 10), CIFAR)]
    assert residual[11:15] == ["11.0: convolution 64@3x3", "11.1: batch norm", "11.2: ReLU", "12: convolution 128@3x3"]
    assert residual[-3:] == ["17: largest of the image", "18: flatten", "19: linear 10, times 0.125"]
    assert layer_table(nn.Conv2d(3, 2, 5), CIFAR) == [
        {"layer": "convolution 2@5x5", "output": (2, 28, 28), "parameters": 152}
    ]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("image_shape", [CIFAR, (29, 44, 1)])
def test_a_table_of_layers_has_all_parameters_and_ends_in_the_logits(name, image_shape):
    model = build_model(name, image_shape, 100)
    rows = layer_table(model, image_shape)
    assert sum(row["parameters"] for row in rows) == count_parameters(model)
    assert rows[-1]["output"] == (100,)


@pytest.mark.parametrize("name", MODELS)
def test_a_table_of_layers_has_the_shapes_of_the_outputs(name):
    model = build_model(name, CIFAR, 7)
    seen = []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    model(torch.rand(2, 3, 32, 32))
    shapes = list(seen)
    assert shapes == [(2, *row["output"]) for row in layer_table(model, CIFAR)]


def test_a_layer_that_runs_twice_has_two_rows_and_counts_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(9, 9)
            self.rectify = nn.ReLU()
            self.same = nn.Conv2d(1, 1, 3, padding=1)
            self.tied = nn.Conv2d(1, 1, 3, padding=1, bias=False)
            self.tied.weight = self.same.weight

        def forward(self, images):
            return self.tied(self.rectify(self.same(self.rectify(self.same(images)))))

    rows = layer_table(Twice(), (4, 6, 1))
    assert [(row["layer"], row["parameters"]) for row in rows] == [
        ("same: convolution 1@3x3", 10),
        ("rectify: ReLU", 0),
        ("same: convolution 1@3x3", 0),
        ("rectify: ReLU", 0),
        ("tied: convolution 1@3x3", 0),
    ]
    assert {row["output"] for row in rows} == {(1, 4, 6)}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fits", [True, False])
def test_a_table_of_layers_leaves_the_network_as_it_was(training, fits):
    model = after_some_training(build_model("resnet-fast", CIFAR, 10), CIFAR).train(training)
    frozen = model[1].train(not training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    random_state = torch.get_rng_state()

    if fits:
        layer_table(model, CIFAR)
    else:
        with pytest.raises(RuntimeError, match="channels"):
            layer_table(model, DIGITS)

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(map(torch.equal, gradients, [parameter.grad for parameter in model.parameters()]))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert {module for module in model.modules() if module.training != training} == {frozen}
    assert not any(module._forward_hooks for module in model.modules())


def test_a_table_of_layers_is_made_where_and_how_the_weights_are():
    model = build_model("convnet-fast", DIGITS, 10)
    for elsewhere in (model.to("meta"), model.to(torch.float64)):
        assert layer_table(elsewhere, DIGITS)[-1]["output"] == (10,)


# torchvision's networks

# Built on the meta device, without memory; the regnets reckon with tensors as they are built, and the largest of them
# would take gigabytes.
BUILT = [name for name, about in BACKBONES.items() if not name.startswith("regnet") or about.parameters < 6e7]
# What torchvision's have beside ours: classifiers at half of the depth.
LEFT_OUT = ("aux1.", "aux2.", "AuxLogits.")


# One of each family, and their sides.
SMALL = {
    "alexnet": 63,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 33,
    "googlenet": 32,
    "inception_v3": 75,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11": 32,
    "vit_b_32": 224,
}
# Three that keep their heads at different places, in different layers.
FEW = ("mobilenet_v3_small", "resnet18", "squeezenet1_1")


def sweeping_all_but(names: Iterable[str], of: Iterable[str]) -> list:
    """Parameters of a test that takes some networks by default, and the others in the sweeps."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.sweep) for name in of]


def on(name: str) -> torch.device:
    return torch.device("cpu" if name.startswith("regnet") else "meta")


@pytest.mark.slow
@pytest.mark.parametrize("name", sweeping_all_but(SMALL, BUILT))
def test_a_network_of_torchvisions_has_its_head_replaced_and_nothing_else(name):
    settings = {
        "googlenet": {"aux_logits": False, "init_weights": False},
        "inception_v3": {"init_weights": False},
        "vit_h_14": {"image_size": 518},  # as its weights were trained
    }
    with on(name):
        ours = build_model(name, (32, 32, 3), 7)
        theirs = get_model(name, **settings.get(name, {}))
    assert count_parameters(theirs) == BACKBONES[name].parameters
    path = head_path(ours)
    head = ours.get_submodule(path)
    assert isinstance(head, nn.Linear) and head.out_features == 7
    assert feature_count(ours) == head.in_features

    # Of squeezenet theirs is a convolution.
    their_head = "classifier.1" if name.startswith("squeezenet") else path
    layer = theirs.get_submodule(their_head)
    assert head.in_features == (layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features)
    assert theirs.state_dict()[f"{their_head}.weight"].shape[0] == 1000

    def but_for_the_head(model: nn.Module, head: str) -> dict[str, tuple]:
        return {
            name: (value.shape, value.dtype)
            for name, value in model.state_dict().items()
            if not name.startswith((f"{head}.", *LEFT_OUT))
        }

    assert but_for_the_head(ours, path) == but_for_the_head(theirs, their_head)


@pytest.mark.slow
@pytest.mark.parametrize("name", sweeping_all_but(SMALL, BUILT))
def test_a_network_of_torchvisions_takes_images_as_small_as_is_told(name):
    side = BACKBONES[name].smallest
    with on(name), torch.no_grad():
        model = build_model(name, (side, side, 3), 3).eval()
        assert model(torch.zeros(1, 3, side, side)).shape == (1, 3)
        if BACKBONES[name].fixed:
            with pytest.raises((RuntimeError, AssertionError)):
                model(torch.zeros(1, 3, side + 32, side + 32))


@pytest.mark.parametrize(
    "name",
    sweeping_all_but((*FEW, *MODELS), [*(name for name in BUILT if BACKBONES[name].parameters < 3e7), *MODELS]),
)
def test_a_hidden_head_takes_the_place_of_the_linear_one(name):
    with on(name) if name in BACKBONES else torch.device("meta"):
        linear = build_model(name, (32, 32, 3), 7)
        hidden = build_model(name, (32, 32, 3), 7, "hidden")
    path = head_path(linear)
    assert head_path(hidden) == path
    first, rectify, drop, last = hidden.get_submodule(path)
    assert isinstance(rectify, nn.ReLU) and drop.p == 0.2
    assert (first.in_features, first.out_features) == (feature_count(linear), 512)
    assert (last.in_features, last.out_features) == (512, 7)
    assert feature_count(hidden) == feature_count(linear)

    def but_for_the_head(model: nn.Module) -> dict[str, tuple]:
        return {name: value.shape for name, value in model.state_dict().items() if not name.startswith(f"{path}.")}

    assert but_for_the_head(hidden) == but_for_the_head(linear)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head"),
    [
        pytest.param(name, head, marks=() if name in MODELS or name in by_default else pytest.mark.sweep)
        for head, by_default in {"linear": SMALL, "hidden": FEW}.items()
        for name in (*SMALL, *MODELS)
    ],
)
def test_the_head_of_the_backbones_features_is_the_network(name, head):
    side = SMALL.get(name, 32)
    torch.manual_seed(0)
    model = build_model(name, (side, side, 3), 5, head).eval()
    backbone = backbone_of(model)
    images = torch.rand(2, 3, side, side)
    with torch.no_grad():
        features = backbone(images)
        assert features.shape == (2, feature_count(model))
        assert not torch.equal(features[0], features[1])
        assert torch.equal(model.get_submodule(head_path(model))(features), model(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "swin_t", "densenet121", "convnet-fast"])
def test_a_backbone_shares_its_weights_with_the_network(name):
    model = build_model(name, (32, 32, 3), 5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    head, path = model.get_submodule(head_path(model)), head_path(model)
    backbone = backbone_of(model)
    assert model.get_submodule(path) is head  # the network is whole as before
    its = dict(model.named_parameters()) | dict(model.named_buffers())
    shared = dict(backbone.named_parameters()) | dict(backbone.named_buffers())
    assert all(value is its[key] for key, value in shared.items())
    assert its.keys() - shared.keys() == {key for key in its if key.startswith(f"{path}.")}
    with torch.no_grad():
        for value in shared.values():
            value.add_(1)
    assert all(
        torch.equal(value, before[key] + (0 if key.startswith(f"{path}.") else 1))
        for key, value in model.state_dict().items()
        if key in shared or key.startswith(f"{path}.")
    )


@pytest.mark.parametrize("name", ["resnet18", "lenet5"])
def test_a_copy_that_shares_weights_has_modules_of_its_own(name):
    model = build_model(name, (32, 32, 3), 5).eval()
    copied = sharing_copy(model)
    assert dict(copied.named_parameters()).keys() == dict(model.named_parameters()).keys()
    theirs = dict(model.named_parameters()) | dict(model.named_buffers())
    assert all(value is theirs[key] for key, value in (*copied.named_parameters(), *copied.named_buffers()))
    assert not set(copied.modules()) & set(model.modules())
    ran = []
    for module in copied.modules():
        module.register_forward_hook(lambda module, inputs, output: ran.append(module))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        answers = model(images)
        assert not ran
        assert torch.equal(copied(images), answers)
    assert ran


def test_squeezenets_head_can_answer_below_zero():
    torch.manual_seed(0)
    model = build_model("squeezenet1_1", (64, 64, 3), 5)
    assert (model(torch.rand(4, 3, 64, 64)) < 0).any()
