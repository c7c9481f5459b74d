"""Random changes to whole batches of training images, as tensor code."""

import torch
from torch import Tensor


def shift(images: Tensor, furthest: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to ``furthest`` pixels either way, both ways drawn at random; edges are filled with 0.

    images: any type, (batch, height, width, channels). ``generator`` is on the CPU, whatever the images' device.
    """
    count, height, width, _ = images.shape
    moves = torch.randint(-furthest, furthest + 1, (2, count, 1), generator=generator).to(images.device)
    rows = torch.arange(height, device=images.device) - moves[0]
    columns = torch.arange(width, device=images.device) - moves[1]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    moved = images[
        torch.arange(count, device=images.device)[:, None, None],
        rows.clamp(0, height - 1)[:, :, None],
        columns.clamp(0, width - 1)[:, None, :],
    ]
    return moved * inside[..., None]
