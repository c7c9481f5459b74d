"""Where in a picture, or in a row, the evidence for a class is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.base.errors import DivergedError
from engine.inference.classifier import DIVERGED, Classifier
from engine.networks.models import sharing_copy

# A convolution whose output has fewer rows or columns says next to nothing of where.
LEAST_SIDE = 4
# The ends and steps of the ramp from cold to hot, dark to light all the way, so that it can be read without colours.
RAMP = np.array(
    [
        (0, 0, 4),
        (40, 11, 84),
        (101, 21, 110),
        (159, 42, 99),
        (212, 72, 66),
        (245, 125, 21),
        (250, 193, 39),
        (252, 255, 164),
    ],
    np.float32,
)


@dataclass(frozen=True)
class Saliency:
    """How much each pixel that the model sees speaks for a class.

    heat: float32 (height, width), 0 to 1; the largest is 1, unless all are 0. layer: the path of the convolution whose
    maps it is read from, None where it is read from the input. side: height and width of those maps.
    """

    heat: np.ndarray
    layer: str | None
    side: tuple[int, int] | None


def saliency(classifier: Classifier, picture: np.ndarray, target: int) -> Saliency:
    """Find what in a picture, uint8 (height, width, channels) of any size, speaks for the class ``target``.

    Grad-CAM (Selvaraju et al. 2017) at the last convolution to run that has an output of at least 4 x 4. Where there is
    none, how much the class's logit changes with each pixel (Simonyan et al. 2014): the largest of its channels.
    """
    classifier.preprocessing.require_images()
    # Hooks would be seen by others who use the same model at this time.
    model = sharing_copy(classifier.model)
    last = _watch(model)
    with torch.inference_mode(False), torch.enable_grad():
        pixels = _as_seen(classifier, picture)
        logit = _logit(model, pixels, target)
        if not last:
            (gradient,) = torch.autograd.grad(logit, pixels)
            return Saliency(_to_one(gradient[0].abs().amax(dim=0)), None, None)
        ((layer, maps),) = last.items()
        (gradient,) = torch.autograd.grad(logit, maps, materialize_grads=True)
    with torch.no_grad():
        heat = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True).relu()
        heat = functional.interpolate(heat, size=pixels.shape[2:], mode="bilinear", align_corners=False)
    height, width = maps.shape[2:]
    return Saliency(_to_one(heat[0, 0]), layer, (height, width))


def _watch(model: nn.Module) -> dict[str, Tensor]:
    """Put hooks on a model; returns what will hold the last convolution's path and what became of its maps.

    They are taken after the normalization, activation, shortcut or joining of branches that follow, as long as these
    keep their size: before, what is below 0 may be evidence too, and one branch is not all there is.
    """
    last: dict[str, Tensor] = {}
    # The path of the convolution that ran last, and the height and width of its output.
    running: tuple[str, torch.Size] | None = None

    def note(path: str, module: nn.Module, output: object) -> Tensor | None:
        nonlocal running
        if not isinstance(output, Tensor) or output.dim() != 4:
            return None
        side = output.shape[2:]
        if _tells_where(module, output):
            running = path, side
        elif running and running[1] == side:
            # Gradients need to reach back to here and no further. What comes next gets a copy: it may work in place.
            maps = output.detach().requires_grad_()
            last.clear()
            last[running[0]] = maps
            return maps.clone()
        return None

    for path, module in model.named_modules():
        module.register_forward_hook(lambda module, inputs, output, path=path: note(path, module, output))
    return last


def _tells_where(module: nn.Module, output: Tensor) -> bool:
    """Tell whether it is a convolution that looks for things in places: not one that cuts the input into patches."""
    if not isinstance(module, nn.Conv2d) or min(output.shape[2:]) < LEAST_SIDE:
        return False
    return module.kernel_size == (1, 1) or module.kernel_size != module.stride


def row_gradients(classifier: Classifier, row: np.ndarray, target: int) -> np.ndarray:
    """Return by how much the class's logit changes with each number of a row as the model sees it, with its sign.

    float32 (features,) in and out; where the model standardizes, it is the change for one standard deviation.
    """
    with torch.inference_mode(False), torch.enable_grad():
        numbers = _as_seen(classifier, row)
        (gradient,) = torch.autograd.grad(_logit(classifier.model, numbers, target), numbers)
    return gradient[0].cpu().numpy()


def overlay(seen: np.ndarray, heat: np.ndarray, strength: float) -> np.ndarray:
    """Lay heat over a picture: uint8 (height, width, channels), and float32 (height, width) from 0 to 1.

    Returns uint8 (height, width, 3). Where there is no heat the picture is as it was; strength, 0 to 1, is how much of
    it the greatest heat hides.
    """
    picture = np.broadcast_to(seen, (*seen.shape[:2], 3)).astype(np.float32)
    stops = np.linspace(0, 1, len(RAMP))
    colours = np.stack([np.interp(heat, stops, channel) for channel in RAMP.T], axis=-1)
    opacity = strength * heat[..., np.newaxis]
    return np.rint(picture + opacity * (colours - picture)).astype(np.uint8)


def _as_seen(classifier: Classifier, sample: np.ndarray) -> Tensor:
    """Return a batch of one picture or row as the model is given it, which gradients are wanted of."""
    device = next(classifier.model.parameters()).device
    with torch.no_grad():
        # A copy: torch warns about arrays that it may not write to.
        numbers: Tensor = classifier.preprocess(torch.from_numpy(np.array(sample)[np.newaxis]).to(device))
    return numbers.requires_grad_()


def _logit(model: Callable[[Tensor], Tensor], numbers: Tensor, target: int) -> Tensor:
    logits = model(numbers)
    if not torch.isfinite(logits).all():
        raise DivergedError(DIVERGED)
    return logits[0, target]


def _to_one(heat: Tensor) -> np.ndarray:
    """Scale heat so that its largest is 1; where there is none it stays 0."""
    most = heat.max()
    return (heat / most if most > 0 else torch.zeros_like(heat)).detach().cpu().numpy()
