"""What `align` does to pictures, in PyTorch: the same filters and formulas, on any device.

Pictures are (C, h, w) float32 here. Matrices stay on the host, as they are: from them come the few numbers that a
kernel needs, so that no call waits for the device. Results differ from OpenCV's by its rounding: its warp places
samples on a grid of 1/32 px, and it reduces bytes to bytes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpenvid.faces.align import CLEAN, NOISY, Matrix, detail_kept, footprint, inverted, taps

GRAY = (0.299, 0.587, 0.114)
"""Luma of RGB, as OpenCV weighs it."""


def sample(values: Tensor, matrix: Matrix, size: int) -> Tensor:
    """See `align.sample`: (C, h, w) to (C, size, size)."""
    return resample(values, matrix, (size, size), "reflection", smooth=True)


def difference(crop_in: Tensor, restored: Tensor, mask: Tensor, matrix: Matrix) -> tuple[Tensor, Tensor]:
    """See `align.difference`: (3, S, S) in codes twice and (1, S, S) to (3, S, S) and (1, S, S)."""
    large = detail_kept(matrix)
    kept = large * passed(crop_in, restored) if large else torch.zeros_like(mask)
    return (restored - crop_in * kept) * mask, mask * (1 - kept)


def spread(change: Tensor, replaced: Tensor, values: Tensor, matrix: Matrix) -> Tensor:
    """See `align.spread`: (C, S, S), (1, S, S) and (C, h, w) to (C, h, w)."""
    shape = (values.shape[2], values.shape[1])
    moved = resample(torch.cat([change, replaced]), inverted(matrix), shape, "zeros")
    return moved[:-1] - moved[-1:] * values


def passed(crop_in: Tensor, restored: Tensor) -> Tensor:
    """See `align.passed`: (3, S, S) in codes twice to (1, S, S)."""
    seen, shown = _finest(crop_in), _finest(restored)
    noise = seen.abs().flatten().median() / 0.6745
    noisy = ((noise - CLEAN) / (NOISY - CLEAN)).clamp(0, 1)
    smooth = blurred(torch.cat([seen * shown, seen * seen]), crop_in.shape[1] / 40)
    gain = ((smooth[:1] + 1) / (smooth[1:] + 1)).clamp(0, 1)
    return 1 - noisy * (1 - gain)


def _finest(face: Tensor) -> Tensor:
    gray = sum(weight * face[i] for i, weight in enumerate(GRAY))
    assert isinstance(gray, Tensor)
    gray = gray.round()[None]
    return gray - blurred(gray, 1.0)


def blurred(picture: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, cut off at four standard deviations, mirrored at the edges."""
    reach = (round(sigma * 8 + 1) | 1) // 2
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    return filtered(picture, kernel, kernel)


def resample(picture: Tensor, matrix: Matrix, shape: tuple[int, int], border: str, *, smooth: bool = False) -> Tensor:
    """Warp by matrix (source px -> destination px) to shape (width, height), as `align` does.

    border: beyond the source is "reflection" or "zeros".
    """
    inverse = inverted(matrix)
    scale = footprint(inverse)
    lift = 0.0
    while scale.min() >= 4 and min(picture.shape[1:]) > 4:
        half = np.array([1, 4, 6, 4, 1]) / 16
        picture = filtered(picture, half, half)[:, ::2, ::2]
        inverse, scale, lift = inverse / 2, scale / 2, lift / 4 + 1 / 8
    factor = 2 if scale.max() < (1.5 if smooth else 0.5) else 1
    lift += 1 / (12 * factor**2)
    across, down = (taps(max(round(float(each), 3), 1.0), lift) for each in scale)
    picture = filtered(picture, across, down)
    if factor == 2:
        picture = F.interpolate(picture[None], scale_factor=2, mode="bicubic", align_corners=False)[0]
        inverse = inverse * 2
        inverse[:, 2] += 0.5
    return warped(picture, inverse, shape, border)


def warped(picture: Tensor, inverse: Matrix, shape: tuple[int, int], border: str) -> Tensor:
    """Linear interpolation at inverse (destination px -> source px)."""
    _, height, width = picture.shape
    x = torch.arange(shape[0], dtype=torch.float32, device=picture.device)
    y = torch.arange(shape[1], dtype=torch.float32, device=picture.device)[:, None]
    places = []
    for (a, b, c), length in zip(inverse.tolist(), (width, height), strict=True):
        scale = 2 / max(length - 1, 1)
        places.append(x * (a * scale) + (y * (b * scale) + (c * scale - 1)))
    grid = torch.stack(places, dim=2)[None]
    return F.grid_sample(picture[None], grid, mode="bilinear", padding_mode=border, align_corners=True)[0]


def filtered(picture: Tensor, across: np.ndarray, down: np.ndarray) -> Tensor:
    """Correlate rows and columns with a kernel of odd length each, mirrored at the edges without repeating them."""
    for axis, kernel in ((2, across), (1, down)):
        reach, length = len(kernel) // 2, picture.shape[axis]
        if reach == 0:
            picture = picture * float(kernel[0])
            continue
        places, period = torch.arange(-reach, length + reach, device=picture.device), max(2 * (length - 1), 1)
        padded = picture.index_select(axis, (places % period).minimum(-places % period)).movedim(axis, 2)
        weight = torch.from_numpy(np.asarray(kernel, np.float32)).to(picture.device, non_blocking=True)
        # One group per line, so that CUDA takes its own depthwise kernels: cuDNN's would round to 10 bits (TF32).
        lines = padded.shape[1]
        picture = F.conv1d(padded, weight.expand(lines, 1, -1), groups=lines).movedim(2, axis)
    return picture
