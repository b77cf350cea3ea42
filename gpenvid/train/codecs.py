"""Video codecs as a degradation: encode a short sequence in memory, decode it again."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from gpenvid.types import Image


@dataclass(frozen=True, slots=True)
class Codec:
    """An encoder and the range of its quantiser: hardly visible loss to plain blocks."""

    encoder: str
    quality: tuple[float, float]


CODECS = {
    "h264": Codec("libx264", (18, 36)),
    "h265": Codec("libx265", (18, 36)),
    "mpeg2": Codec("mpeg2video", (2, 20)),
}


def _open(name: str, width: int, height: int, quality: float) -> av.VideoCodecContext:
    codec = CODECS[name]
    context = av.CodecContext.create(codec.encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.thread_count = 1
    if name == "mpeg2":
        quantiser = str(max(1, round(quality)))
        context.options = {"qmin": quantiser, "qmax": quantiser, "bf": "0"}
    else:
        context.options = {"crf": f"{quality:.2f}", "preset": "ultrafast" if name == "h265" else "veryfast"}
        if name == "h265":
            context.options |= {"x265-params": "log-level=none:pools=none:frame-threads=1:bframes=0"}
        else:
            context.options |= {"bf": "0", "threads": "1"}
    return context


def encode_decode(pictures: list[Image], codec: str, quality: float) -> list[Image]:
    """What a decoder makes of `pictures` (RGB uint8, one size) encoded by `codec` at quantiser `quality`.

    Sides are padded to a multiple of 16 by repeating the border, and cut again. Raises KeyError for an unknown codec.
    """
    height, width = pictures[0].shape[:2]
    pad = ((0, max(-height % 16, 64 - height)), (0, max(-width % 16, 64 - width)), (0, 0))
    padded = [np.pad(picture, pad, mode="edge") for picture in pictures]
    encoder = _open(codec, padded[0].shape[1], padded[0].shape[0], quality)
    packets = []
    for number, picture in enumerate(padded):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = number
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create({"h264": "h264", "h265": "hevc", "mpeg2": "mpeg2video"}[codec], "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    if len(frames) != len(pictures):
        raise RuntimeError(f"{codec} gave {len(frames)} of {len(pictures)} pictures back")
    return [np.ascontiguousarray(frame.to_ndarray(format="rgb24")[:height, :width]) for frame in frames]
