"""What a restoration must not invent: colour in a picture that has none."""

from __future__ import annotations

import cv2
import numpy as np

from gpenvid.types import Image

GRAY, COLOURED = 1.0, 3.0
"""Mean difference between a pixel's channels and its luma, in codes: up to GRAY a crop counts as gray."""


def keep_gray(crop: Image, restored: Image) -> Image:
    """Take the colour out of a restored face whose crop is gray.

    crop, restored: (S, S, 3) RGB uint8. Between GRAY and COLOURED the colour is kept in proportion, so that a film
    that fades to gray doesn't flip; above, `restored` itself is returned.
    """
    luma = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    colour = float(cv2.absdiff(crop, cv2.merge([luma] * 3)).mean())
    kept = min(max((colour - GRAY) / (COLOURED - GRAY), 0.0), 1.0)
    if kept == 1:
        return restored
    gray = cv2.merge([cv2.cvtColor(restored, cv2.COLOR_RGB2GRAY)] * 3)
    return np.asarray(cv2.addWeighted(restored, kept, gray, 1 - kept, 0), np.uint8)
