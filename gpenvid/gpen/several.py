"""One restorer over several devices: each batch is shared out, and they work on their shares at the same time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gpenvid.errors import DeviceError
from gpenvid.gpen.restorer import BatchRestorer, check_crops
from gpenvid.stages import background

log = logging.getLogger(__name__)


class SeveralRestorer(BatchRestorer):
    """Hands faces to restorers of the same network, in shares; whoever is done takes the next one.

    Only the faces are shared out. Tracking, flicker filter and pasting stay one, so that the result does not depend on
    how many devices there are. A device that fails is left out from then on, with a warning; the last one's failure is
    the DeviceError of all. One call at a time, as for each of them.
    """

    def __init__(self, members: Sequence[BatchRestorer]) -> None:
        """members: at least one, all with the same weights."""
        first = members[0]
        super().__init__(
            first.size,
            device=first.device,
            precision=first.precision,
            batch=sum(each.batch for each in members),
            name=first.name,
            sha256=first.sha256,
        )
        self.members = list(members)
        self.devices = ",".join(str(each.device) for each in members)
        self._failed: dict[int, DeviceError] = {}

    def restore(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Restorer.restore`. Raises DeviceError when no device is left."""
        check_crops(crops, self.size)
        restored = np.empty_like(crops)
        waiting = deque(self._shares(len(crops)))

        def work(number: int, share: slice) -> None:
            while True:
                try:
                    restored[share] = self.members[number].restore(crops[share])
                except DeviceError as error:
                    waiting.appendleft(share)
                    self._failed[number] = error
                    return
                except BaseException:
                    waiting.clear()
                    raise
                try:
                    share = waiting.popleft()
                except IndexError:
                    return

        while waiting:
            left = [number for number in range(len(self.members)) if number not in self._failed]
            first = [partial(work, number, waiting.popleft()) for number in left[: len(waiting)]]
            with ExitStack() as beside:
                for number, each in enumerate(first[1:], start=1):
                    beside.enter_context(background(each, f"restore-{number}"))
                first[0]()
            self._count_losses()
        return restored

    def _restore(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self.restore(crops)

    def _shares(self, count: int) -> list[slice]:
        """Equal ones, as many as there are devices, or more where a share would be too large for one."""
        left = self._left()
        size = max(1, min(-(-count // len(left)), min(each.batch for each in left)))
        return [slice(start, start + size) for start in range(0, count, size)]

    def _left(self) -> list[BatchRestorer]:
        """Those that have not failed. Raises DeviceError when all have."""
        left = [each for number, each in enumerate(self.members) if number not in self._failed]
        if not left:
            raise DeviceError("; ".join(str(error) for error in self._failed.values()))
        return left

    def _count_losses(self) -> None:
        """Tell of devices that failed now. Raises DeviceError when none is left."""
        left = self._left()
        batch = sum(each.batch for each in left)
        devices = ",".join(str(each.device) for each in left)
        if devices != self.devices:
            log.warning("%s; going on with %s", list(self._failed.values())[-1], devices)
        self.batch, self.devices = batch, devices
