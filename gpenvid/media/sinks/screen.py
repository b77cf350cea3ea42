"""Outputs that take pictures themselves: a preview window, a virtual camera, raw pictures for another program."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np

from gpenvid.errors import MediaError, OptionsError
from gpenvid.media.color import convert
from gpenvid.media.sinks import TIME_BASE, LiveStreams
from gpenvid.media.sinks.child import READY, Child
from gpenvid.media.sinks.files import Pipe
from gpenvid.types import Image

PATIENCE = 10.0
"""Seconds that the window may take to show something."""

_WINDOW = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
_FPS_OVER = 30
_ORIGINALS = 64
_MAX_WIDTH = 1600
_Y4M_FORMATS = ("yuv420p", "yuv422p", "yuv444p", "gray")
_USUAL_RATE = 25
_LONGEST_GAP = 10
"""Seconds. A longer pause isn't filled with copies of a picture."""


class Originals:
    """The latest pictures as they came, small, for the left half of the preview; from any thread."""

    def __init__(self) -> None:
        self._pictures: deque[tuple[int, Image]] = deque(maxlen=_ORIGINALS)

    def keep(self, frame: av.VideoFrame) -> None:
        """Remember a picture before it is changed."""
        assert frame.pts is not None and frame.time_base is not None
        self._pictures.append((round(frame.pts * frame.time_base / TIME_BASE), _bgr(frame, _MAX_WIDTH // 2)))

    def at(self, time: int) -> Image | None:
        """The picture of that time in TIME_BASE, BGR; None if it isn't known any more."""
        return next((picture for stamp, picture in list(self._pictures) if stamp == time), None)


class PreviewOutput:
    """A window with the pictures as they come: left as they were, right enhanced, and how many a second are shown.

    q, Escape or the window's own button ends it.
    """

    reopens = False

    def __init__(self, title: str = "gpenvid") -> None:
        """Raises MediaError where no window can be shown: without a screen, or with a headless OpenCV."""
        self.name = "preview window"
        self.originals = Originals()
        self._title = title
        self._child: Child | None = None
        self._shown: deque[float] = deque(maxlen=_FPS_OVER)
        gui = next((line for line in cv2.getBuildInformation().splitlines() if line.strip().startswith("GUI:")), "")
        if "NONE" in gui:
            raise MediaError("preview: this OpenCV is headless; install opencv-python in its place")
        # Without a screen, Qt doesn't return an error but ends its process.
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise MediaError("preview: no screen ($DISPLAY isn't set)")

    def open(self, streams: LiveStreams) -> None:
        """Open the window. Raises MediaError."""
        self._child = Child(self.name, ["-c", _WINDOW, str(Path(__file__).with_name("window.py"))], PATIENCE)
        self._child.send((self._title, PATIENCE))
        self._child.wait_for(READY)

    def show(self, frame: av.VideoFrame, time_: int) -> bool:
        """Show a picture; False when somebody closed the window. Raises MediaError."""
        assert self._child is not None
        self._shown.append(time.monotonic())
        before = self.originals.at(time_)
        self._child.send(side_by_side(before, _bgr(frame, _MAX_WIDTH // 2), self._fps()))
        return not self._child.finished

    def close(self) -> None:
        """Close the window. Raises MediaError."""
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def interrupt(self) -> None:
        """Let the call that waits for the window fail."""
        child = self._child
        if child is not None:
            child.interrupt()

    def _fps(self) -> float:
        span = self._shown[-1] - self._shown[0]
        return (len(self._shown) - 1) / span if span > 0 else 0.0


class CameraOutput:
    """A virtual camera that video conferences can choose; pictures of one size, at the source's rate."""

    reopens = False

    def __init__(self, device: str = "") -> None:
        """device: its name for pyvirtualcam, or "" for the first. Raises OptionsError without that package."""
        self.name = f"virtual camera {device}".strip()
        self._device = device or None
        self._camera: Any = None
        try:
            import pyvirtualcam
        except ImportError as error:
            raise OptionsError("camera: needs pyvirtualcam; install gpenvid[camera]") from error
        self._package: Any = pyvirtualcam

    def open(self, streams: LiveStreams) -> None:
        """Take the device. Raises MediaError if there is none, for example without v4l2loopback."""
        self._size = (streams.width & ~1, streams.height & ~1)
        rate = float(streams.rate or _USUAL_RATE)
        try:
            self._camera = self._package.Camera(
                *self._size, rate, fmt=self._package.PixelFormat.I420, device=self._device
            )
        except (RuntimeError, ValueError) as error:
            raise MediaError(f"{self.name}: can't be opened ({str(error).splitlines()[0]})") from error

    def show(self, frame: av.VideoFrame, time: int) -> bool:
        """Send a picture. Raises MediaError."""
        planar = convert(frame, "yuv420p", self._size, full=False)
        try:
            self._camera.send(np.ascontiguousarray(planar.to_ndarray()).ravel())
        except (RuntimeError, ValueError) as error:
            raise MediaError(f"{self.name}: {str(error).splitlines()[0]}") from error
        return True

    def close(self) -> None:
        """Give the device back."""
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    def interrupt(self) -> None:
        """Nothing here waits for others."""


class RawOutput:
    """Raw pictures as YUV4MPEG2 into a pipe. The format knows no times: pictures are repeated and left out so that
    they fit the source's rate, but for pauses longer than ten seconds."""

    reopens = False

    def __init__(self, descriptor: int = 1) -> None:
        self.name = "standard output"
        self._pipe = Pipe(descriptor)
        self._container: Any = None
        self._due: int | None = None

    def open(self, streams: LiveStreams) -> None:
        """Write the header. Raises MediaError."""
        self._rate = streams.rate or _USUAL_RATE
        self._format = streams.pix_fmt if streams.pix_fmt in _Y4M_FORMATS else "yuv420p"
        try:
            self._container = av.open(cast(Any, self._pipe), "w", format="yuv4mpegpipe")
            self._stream = self._container.add_stream("rawvideo", rate=self._rate)
            self._stream.width, self._stream.height = streams.width, streams.height
            self._stream.pix_fmt = self._format
            self._stream.codec_context.sample_aspect_ratio = streams.sample_aspect_ratio
            self._size = (streams.width, streams.height)
            self._container.start_encoding()
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise self._failure(error) from error

    def show(self, frame: av.VideoFrame, time: int) -> bool:
        """Write the picture as often as its time asks for, from not at all to many times. Raises MediaError."""
        tick = round(time * TIME_BASE * self._rate)
        if self._due is None or tick - self._due > _LONGEST_GAP * self._rate:
            self._due = tick
        if tick < self._due:
            return True
        picture = frame if frame.format.name == self._format else convert(frame, self._format, self._size)
        samples = picture.to_ndarray()
        try:
            for _ in range(self._due, tick + 1):
                copy = av.VideoFrame.from_ndarray(samples, self._format)
                self._container.mux(self._stream.encode(copy))
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise self._failure(error) from error
        self._due = tick + 1
        return True

    def close(self) -> None:
        """Write what is left. Raises MediaError."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            container.close()
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise self._failure(error) from error

    def interrupt(self) -> None:
        """Let the write that waits for the reader fail."""
        self._pipe.shut = True

    def _failure(self, error: Exception) -> MediaError:
        return MediaError(f"{self.name}: can't be written ({str(getattr(error, 'strerror', None) or error).lower()})")


def side_by_side(before: Image | None, after: Image, fps: float) -> Image:
    """Both pictures in one, BGR, the rate in its corner; the enhanced one alone where there is no other."""
    if before is not None:
        if before.shape != after.shape:
            before = cast(Image, cv2.resize(before, (after.shape[1], after.shape[0])))
        both = np.hstack([before, after])
    else:
        both = after.copy()
    for thickness, color in ((3, (0, 0, 0)), (1, (255, 255, 255))):
        cv2.putText(both, f"{fps:.1f} fps", (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, thickness, cv2.LINE_AA)
    return both


def _bgr(frame: av.VideoFrame, widest: int) -> Image:
    """The picture as OpenCV shows it, uint8 (H, W, 3), no wider than that."""
    scale = min(1.0, widest / frame.width)
    size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
    return cast(Image, convert(frame, "bgr24", size).to_ndarray())
