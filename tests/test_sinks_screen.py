"""Outputs that take pictures: the preview window and the virtual camera."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sink_feed import RATE, SIZE, Feed, needs, opened, until

from gpenvid.errors import GpenvidError, MediaError, OptionsError
from gpenvid.media.sinks import screen
from gpenvid.media.sinks.choose import choose_sink
from gpenvid.media.sinks.screen import side_by_side

STAND_IN = """
import os
import numpy as np
WINDOW_AUTOSIZE = WINDOW_GUI_NORMAL = WND_PROP_VISIBLE = 0
class error(Exception): pass
shown = []
def namedWindow(title, flags):
    if title != "gpenvid" or os.environ.get("NO_WINDOW"):
        raise error("OpenCV: no\\nwindow")
def imshow(title, picture):
    shown.append(picture)
    np.save(os.environ["SHOWN"], np.stack(shown))
def waitKey(delay):
    return ord("q") if len(shown) == 3 else -1
def getWindowProperty(title, which):
    return 1.0
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An OpenCV whose windows are a file, for the child process; somebody presses q at the third picture."""
    (tmp_path / "cv2.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SHOWN", str(tmp_path / "shown.npy"))
    return tmp_path / "shown.npy"


def test_both_pictures_beside_each_other_with_the_rate() -> None:
    before, after = np.full((60, 80, 3), 10, np.uint8), np.full((120, 160, 3), 200, np.uint8)
    both = side_by_side(before, after, 24.96)
    assert both.shape == (120, 320, 3)
    assert (both[40:, :160] == 10).all()
    assert (both[40:, 160:] == 200).all()
    assert (both[:40, :160] == 255).any()
    alone = side_by_side(None, after, 0)
    assert alone.shape == (120, 160, 3)
    assert (after == 200).all()


def test_the_preview_shows_what_was_and_what_is_until_somebody_closes_it(tmp_path: Path, stand_in: Path) -> None:
    feed, sink = Feed(tmp_path, 4, None), choose_sink(["preview:", str(tmp_path / "out.mkv")])
    with opened(sink, feed):
        for index in range(100):
            before, after = feed.picture(index), feed.picture(index + 20)
            after.pts = before.pts
            sink.original(before)
            sink.video(after)
            until(lambda index=index: sink.states[1].pictures + sink.states[1].dropped > min(index, 1))
    preview = next(state for state in sink.states if state.name == "preview window")
    assert preview.state == "closed"
    shown = np.load(stand_in)
    assert shown.shape == (3, SIZE[1], 2 * SIZE[0], 3)
    first = feed.picture(0).to_ndarray(format="bgr24")
    assert np.abs(shown[0, 40:, : SIZE[0]].astype(int) - first[40:]).max() <= 3
    later = feed.picture(20).to_ndarray(format="bgr24")
    assert np.abs(shown[0, 40:, SIZE[0] :].astype(int) - later[40:]).max() <= 3
    file = sink.states[0]
    assert (file.state, file.pictures, file.dropped) == ("closed", 100, 0)


def test_a_window_that_cannot_be_is_one_line(tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_WINDOW", "1")
    sink, feed = choose_sink(["preview:"]), Feed(tmp_path, 1, None)
    sink.open(feed.streams)
    until(lambda: sink.states[0].state == "failed")
    with pytest.raises(MediaError) as caught:
        sink.video(feed.picture(0))
    assert str(caught.value) == "preview window: can't be shown (OpenCV: no)"
    with pytest.raises(MediaError):
        sink.close()


def test_no_screen_and_a_headless_opencv_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(MediaError, match=r"preview: no screen \(\$DISPLAY isn't set\)"):
        choose_sink(["preview:"])
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           NONE\n")
    with pytest.raises(MediaError, match="preview: this OpenCV is headless; install opencv-python"):
        choose_sink(["preview:"])


@pytest.mark.long  # a window system of its own, which a busy machine may not start in time
def test_a_real_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("Xvfb")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "640x480x24"]
    with subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL) as server:
        os.close(writer)
        with os.fdopen(reader) as told:
            monkeypatch.setenv("DISPLAY", f":{told.readline().strip()}")
        try:
            sink, feed = choose_sink(["preview:"]), Feed(tmp_path, 1, None)
            with opened(sink, feed):
                feed.give(sink, pace=0.01)
                until(lambda: sink.states[0].pictures + sink.states[0].dropped == RATE)
            assert sink.states[0].state == "closed"
            assert sink.states[0].pictures > 0
        finally:
            server.terminate()


class StandInCamera:
    """What pyvirtualcam's camera does, without a device."""

    made: list[StandInCamera] = []  # noqa: RUF012

    def __init__(self, width: int, height: int, fps: float, *, fmt: str, device: str | None) -> None:
        if device == "/dev/video99":
            raise RuntimeError("no such device\nDid you load the module?")
        self.settings = (width, height, fps, fmt, device)
        self.sent: list[bytes] = []
        self.closed = False
        self.made.append(self)

    def send(self, frame: Any) -> None:
        assert frame.dtype == np.uint8
        assert frame.ndim == 1
        self.sent.append(frame.tobytes())

    def close(self) -> None:
        self.closed = True


def test_the_virtual_camera_gets_planar_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = types.ModuleType("pyvirtualcam")
    package.Camera, package.PixelFormat = StandInCamera, types.SimpleNamespace(I420="I420")
    monkeypatch.setitem(sys.modules, "pyvirtualcam", package)
    StandInCamera.made.clear()
    sink, feed = choose_sink(["camera:/dev/video7"]), Feed(tmp_path, 1, None)
    with opened(sink, feed):
        for index in range(5):
            sink.video(feed.picture(index))
            until(lambda index=index: sink.states[0].pictures == index + 1)
    (camera,) = StandInCamera.made
    assert camera.settings == (*SIZE, 25.0, "I420", "/dev/video7")
    assert camera.sent == [feed.picture(index).to_ndarray().tobytes() for index in range(5)]
    assert camera.closed
    broken = choose_sink(["camera:/dev/video99"])
    broken.open(feed.streams)
    until(lambda: broken.states[0].state == "failed")
    with pytest.raises(MediaError) as caught:
        broken.close()
    assert str(caught.value) == "virtual camera /dev/video99: can't be opened (no such device)"


def test_a_camera_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(OptionsError) as caught:
        choose_sink(["camera:"])
    assert str(caught.value) == "camera: needs pyvirtualcam; install gpenvid[camera]"
    assert isinstance(caught.value, GpenvidError)
