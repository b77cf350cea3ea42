"""Several devices restore the shares of a batch at the same time, and give what one gives."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from fakes import SquareDetector
from numpy.typing import NDArray

import gpenvid
from gpenvid import cli
from gpenvid.errors import DeviceError
from gpenvid.gpen.arch import Architecture, FullGenerator
from gpenvid.gpen.restorer import BatchRestorer, GpenRestorer, load_restorer
from gpenvid.gpen.several import SeveralRestorer

SIZE = 8
Step = Callable[[NDArray[np.uint8]], None]


class Adds(BatchRestorer):
    """Adds 1 to every sample, after `step`, which may wait or raise."""

    def __init__(self, device: str = "cpu", batch: int = 2, step: Step = lambda crops: None, size: int = SIZE) -> None:
        super().__init__(size, device=device, precision="fp32", batch=batch, name="adds", sha256="0")
        self.step = step
        self.batches: list[int] = []

    def _restore(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self.batches.append(len(crops))
        self.step(crops)
        return crops + np.uint8(1)


def faces(count: int, size: int = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (count, size, size, 3), dtype=np.uint8)


def fails(crops: NDArray[np.uint8]) -> None:
    raise RuntimeError("CUDA out of memory")


@pytest.mark.parametrize(
    ("count", "shares"), [(0, []), (1, [1]), (2, [1, 1]), (3, [1, 2]), (4, [2, 2]), (7, [1, 2, 2, 2])]
)
def test_a_batch_is_shared_out_and_comes_back_in_order(count: int, shares: list[int]) -> None:
    members = [Adds(), Adds()]
    several = SeveralRestorer(members)
    assert (several.batch, several.size, several.devices, several.name) == (4, SIZE, "cpu,cpu", "adds")
    crops = faces(count)
    np.testing.assert_array_equal(several.restore(crops), crops + 1)
    assert sorted(members[0].batches + members[1].batches) == shares


def test_the_devices_work_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=100)  # passed only by three that wait at once

    def meet(crops: NDArray[np.uint8]) -> None:
        meeting.wait()

    members = [Adds(step=meet) for _ in range(3)]
    several = SeveralRestorer(members)
    several.restore(faces(6))
    assert [each.batches for each in members] == [[2]] * 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpenvid-restore")]


def test_who_is_done_takes_the_next_share() -> None:
    others_are_done = threading.Event()
    slow = Adds(batch=1, step=lambda crops: None if others_are_done.wait(100) else fails(crops))
    seen: list[int] = []

    def count(crops: NDArray[np.uint8]) -> None:
        seen.append(len(crops))
        if len(seen) == 4:
            others_are_done.set()

    SeveralRestorer([slow, Adds(batch=1, step=count)]).restore(faces(5))
    assert (slow.batches, seen) == ([1], [1] * 4)


def test_a_device_that_fails_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    members = [Adds("cuda:0", step=fails), Adds("cuda:1")]
    members[0]._shrink = lambda tried: _too_little(members[0], tried)  # type: ignore[method-assign]
    several = SeveralRestorer(members)
    crops = faces(4)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(several.restore(crops), crops + 1)
        np.testing.assert_array_equal(several.restore(crops), crops + 1)
    assert caplog.messages == ["cuda:0: out of memory; going on with cuda:1"]
    assert members[0].batches == [2]
    assert (several.batch, several.devices) == (2, "cuda:1")


def _too_little(restorer: BatchRestorer, tried: int) -> None:
    raise DeviceError(f"{restorer.device}: out of memory")


def test_when_none_is_left_the_error_names_them() -> None:
    several = SeveralRestorer([Adds(step=fails), Adds(step=fails)])
    for _ in range(2):
        with pytest.raises(DeviceError, match=r"^(cpu: out of memory for a single face of 8 pixels(; )?){2}$"):
            several.restore(faces(4))


def test_another_error_is_raised_and_nothing_goes_on() -> None:
    def breaks(crops: NDArray[np.uint8]) -> None:
        raise ZeroDivisionError

    members = [Adds(step=breaks, batch=1), Adds(step=breaks, batch=1)]
    with pytest.raises(ZeroDivisionError):
        SeveralRestorer(members).restore(faces(40))
    assert len(members[0].batches + members[1].batches) <= 2
    with pytest.raises(ValueError, match="crops must be"):
        SeveralRestorer(members).restore(faces(1, size=4))


def network() -> FullGenerator:
    torch.manual_seed(0)
    return FullGenerator(Architecture(size=64, channel_multiplier=1, narrow=0.0625, n_mlp=1, style_dim=8))


def decoded(path: Path) -> list[bytes]:
    with av.open(path) as container:
        return [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]


def test_a_film_is_the_same_by_one_and_by_two(film: Callable[..., Path], tmp_path: Path) -> None:
    source = film(faces=2)
    one, two = (tmp_path / f"{name}.mkv" for name in ("one", "two"))
    gpenvid.enhance(source, one, restorer=GpenRestorer(network(), 64, batch=1), detector=SquareDetector())
    both = SeveralRestorer([GpenRestorer(network(), 64, batch=1) for _ in range(2)])
    report = gpenvid.enhance(source, two, restorer=both, detector=SquareDetector())
    assert report.counts.restored == 40
    assert report.model["devices"] == "cpu,cpu"
    assert decoded(one) == decoded(two) != decoded(source)


def test_from_the_command_line(film: Callable[..., Path], tmp_path: Path) -> None:
    words = ["enhance", str(film(frames=3)), "-o", str(tmp_path / "out.mkv"), "--report", str(tmp_path / "report.json")]
    assert cli.main([*words, "--device", "cpu,cpu", "--offline", "--quiet"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["model"]["devices"] == "cpu,cpu"
    assert report["detector"]["device"] == "cpu"


def test_each_device_is_loaded_with_the_same_choices() -> None:
    several = load_restorer("auto", device="cpu,cpu", batch=3, offline=True)
    assert isinstance(several, SeveralRestorer)
    assert [each.batch for each in several.members] == [3, 3]
    assert several.members[0].sha256 == several.members[1].sha256 == several.sha256
    with pytest.raises(DeviceError, match="cuda:7"):
        load_restorer("auto", device="cpu,cuda:7", offline=True)
