"""Generated media and the CUDA marker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from fakes import picture


def pytest_configure(config: pytest.Config) -> None:
    """Workers that run beside each other share the processor's cores."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        if os.environ.get("GPENVID_REQUIRE_CUDA"):
            pytest.fail("GPENVID_REQUIRE_CUDA is set and there is no CUDA device")
        pytest.skip("no CUDA device")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from threads, and lose a lot on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def film(tmp_path: Path) -> Callable[..., Path]:
    """Make a short film: a green square that moves over a grey texture, at irregular times, with a tone."""

    def make(
        name: str = "film.mp4",
        frames: int = 20,
        width: int = 320,
        height: int = 240,
        faces: int = 1,
        audio: bool = True,
    ) -> Path:
        path = tmp_path / name
        squares = [(100.0, 120.0, 40.0), (230.0, 110.0, 36.0)][:faces]
        with av.open(path, "w") as container:
            video = container.add_stream("libx264", rate=25, options={"crf": "12", "preset": "ultrafast"})
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            video.time_base = video.codec_context.time_base = Fraction(1, 1000)
            sound = container.add_stream("aac", rate=48000, layout="mono") if audio else None
            container.metadata["title"] = "a test film"
            for i in range(frames):
                moved = [(x + 2 * i, y, side) for x, y, side in squares]
                frame = av.VideoFrame.from_ndarray(picture(width, height, *moved), "rgb24")
                frame.pts, frame.time_base = 40 * i + (7 if i % 3 == 1 else 0), Fraction(1, 1000)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            if sound is not None:
                samples = round(48000 * frames / 25)
                tone = np.sin(np.arange(samples) * 0.05).astype(np.float32)[None] * 0.3
                for start in range(0, samples, 1024):
                    chunk = av.AudioFrame.from_ndarray(tone[:, start : start + 1024], "fltp", "mono")
                    chunk.sample_rate, chunk.pts, chunk.time_base = 48000, start, Fraction(1, 48000)
                    container.mux(sound.encode(chunk))
                container.mux(sound.encode(None))
        return path

    return make
