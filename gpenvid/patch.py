"""A face as a patch of its picture: cut out of the picture's own samples, and put back into them."""

from __future__ import annotations

from typing import Any, Protocol

import av
import cv2
import numpy as np

from gpenvid.faces import align
from gpenvid.media.pixels import reduced as reduced
from gpenvid.media.planes import Sampling, layers
from gpenvid.types import Float, Image


class Patch(Protocol):
    """What cuts faces out and puts them back: this module, or `patch_torch.TorchPatch`."""

    def reduced(self, frame: av.VideoFrame, size: tuple[int, int]) -> Image:
        """See `media.pixels`."""

    def cut_out(self, frame: av.VideoFrame, matrix: align.Matrix, size: int) -> Image | None:
        """See below."""

    def put_back(self, frame: av.VideoFrame, matrix: align.Matrix, crop: Image, restored: Image, mask: Float) -> None:
        """See below."""


def cut_out(frame: av.VideoFrame, matrix: align.Matrix, size: int) -> Image | None:
    """Take an aligned face out of a picture: RGB (size, size, 3) uint8, or None where it lies outside.

    matrix: (2, 3), stored picture px -> crop px. Luma and chroma are brought to the crop's resolution each from its
    own, and only then become colours. Raises ValueError for a pixel format that can't be edited in place.
    """
    picture = layers(frame)
    parts = []
    for layer in picture.layers:
        to_crop = from_samples(matrix, layer)
        bounds = align.crop_bounds(to_crop, size, *layer.size)
        if bounds is None:
            return None
        parts.append(align.sample(layer.read(*bounds), align.localize(to_crop, *bounds[:2]), size))
    return align.to_codes(np.asarray(cv2.transform(cv2.merge(parts), picture.to_rgb), np.float32))


def put_back(frame: av.VideoFrame, matrix: align.Matrix, crop: Image, restored: Image, mask: Float) -> None:
    """Show a restored face in the picture that it was cut out of.

    crop: as `cut_out` gave it; mask: (S, S) in [0, 1]; see `align.difference`. Samples at which the mask is zero keep
    every bit. The picture must be writable. Raises ValueError for a pixel format that can't be edited in place.
    """
    picture = layers(frame)
    change, replaced = align.difference(crop, restored, mask, matrix)
    change = np.atleast_3d(np.asarray(cv2.transform(change, picture.to_samples), np.float32))
    first = 0
    for layer in picture.layers:
        own = change[..., first : first + len(layer.zero)]
        first += len(layer.zero)
        to_crop = from_samples(matrix, layer)
        bounds = align.spread_bounds(mask, to_crop, *layer.size)
        if bounds is not None:
            local = align.localize(to_crop, *bounds[:2])
            own = np.ascontiguousarray(own[..., 0] if len(layer.zero) == 1 else own)
            layer.add(*bounds[:2], align.spread(own, replaced, layer.above_zero(*bounds), local))


def from_samples(matrix: align.Matrix, layer: Sampling[Any]) -> align.Matrix:
    """Give the map from a layer's samples to crop px, for one from picture px."""
    linear = matrix[:, :2] * layer.grain
    return np.column_stack([linear, matrix[:, 2] + matrix[:, :2] @ layer.phase])
