"""Pictures that a graphics card decoded and that stay in its memory: pixel format `cuda`.

They are no decoder's reference pictures, since FFmpeg gives out copies unless told otherwise (`unsafe_output`), and so
may be edited where they are; see `planes_torch`.
"""

from __future__ import annotations

import av
from av.codec.hwaccel import HWAccel

SEEN = frozenset({"nv12", "p010le", "p016le"})
"""The formats of pictures on a card that PyAV lets others see, in even sizes."""

CAN_STAY = hasattr(av.VideoFrame, "sw_format")
"""Whether this PyAV can leave pictures on the card: from 18.1 on."""


def accelerator(kind: str, card: int | None = None) -> HWAccel:
    """What decodes by FFmpeg's hardware acceleration of that kind. card: see `probe.open_input`."""
    if card is None:
        return HWAccel(kind, allow_software_fallback=True)
    # Pictures are shared within a context only. PyTorch's is the primary one with flags that FFmpeg refuses to take
    # over, but it joins the one that is current.
    joined: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"}
    return HWAccel(kind, str(card), allow_software_fallback=True, options=joined, is_hw_owned=True)


def on_card(frame: av.VideoFrame) -> bool:
    """Whether the picture lies in a graphics card's memory."""
    return frame.format.name == "cuda"


def can_be_edited(frame: av.VideoFrame) -> bool:
    """Whether the picture lies on a card and can be edited there."""
    stored = frame.sw_format
    return stored is not None and stored.name in SEEN and frame.width % 2 == frame.height % 2 == 0


def fetched(frame: av.VideoFrame) -> av.VideoFrame:
    """The picture in the host's memory, with its tags and everything else that it carries; itself if it is there."""
    if not on_card(frame):
        return frame
    assert frame.sw_format is not None
    host = frame.reformat(format=frame.sw_format.name)
    host.opaque = frame.opaque
    return host
