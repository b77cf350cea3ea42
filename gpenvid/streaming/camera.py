"""One source of a live session and where its pictures go."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, is_dataclass
from typing import Literal

import av
from av.stream import Stream

from gpenvid.errors import GpenvidError, MediaError
from gpenvid.media.address import Address
from gpenvid.media.fit import Fit
from gpenvid.media.live import LiveSource, Shown
from gpenvid.media.mark import copy, marked
from gpenvid.media.sinks import Sink
from gpenvid.options import LiveOptions, SourceOptions, TrackerOptions
from gpenvid.streaming.report import CameraReport, Latency, PictureCounts
from gpenvid.streaming.together import Following

log = logging.getLogger(__name__)

_EARLY_SOUND = 1000
_RECENT = 32


@dataclass(frozen=True, slots=True)
class Out:
    """A picture on its way out, or the end. held: only its time matters, the last one is shown again.

    error: why it ended, if not well. It comes after the pictures that were there before.
    """

    kind: Literal["restored", "passed", "held", "ended"]
    frame: av.VideoFrame | None = None
    arrived: float = 0.0
    pts: int = 0
    error: GpenvidError | None = None


class Camera:
    """A source, what is known of the faces in it, and its outputs. What fails here ends this camera alone.

    Its source runs in one thread, `accept` and `fit` are called from another, `put` from a third.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        sink: Sink,
        source: SourceOptions,
        live: LiveOptions,
        tracker: TrackerOptions,
        stop: threading.Event,
    ) -> None:
        """stop: ends all cameras; the camera's own `stop` ends only this one."""
        self.name = name
        self.sink = sink
        self.live = live
        self.counts = PictureCounts()
        self.latency = Latency()
        self.error: GpenvidError | None = None
        self.notes: list[str] = []
        self.following = Following(tracker)
        self.late = live.late if live.late != "auto" else "wait" if address.ends else "drop"
        self.stop = threading.Event()
        self._stop = stop
        self.source = LiveSource(
            address,
            source,
            on_packet=self._sound,
            stopped=lambda: self.stop.is_set() or stop.is_set(),
            hold=live.on_loss == "hold",
            duration=live.duration,
        )
        self._overtaken = 0
        self._fit: Fit | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._lock = threading.Lock()
        self._open = self._closed = False
        self._early: deque[av.Packet[Stream]] = deque(maxlen=_EARLY_SOUND)
        self._last: av.VideoFrame | None = None
        self._mark: av.VideoFrame | None = None

    def overtaken(self, *, dropped: bool = False) -> None:
        """A picture was late."""
        with self._lock:
            self.counts.dropped += dropped
            self._overtaken += 1

    def take_overtaken(self) -> int:
        """How many pictures were late since this was last asked."""
        with self._lock:
            late, self._overtaken = self._overtaken, 0
        return late

    def too_old(self, shown: Shown) -> bool:
        """Whether the picture could not be out within `max_latency`, as long as it has taken lately."""
        limit = self.live.max_latency
        if not limit:
            return False
        usual = sum(self._recent) / len(self._recent) if self._recent else 0.0
        return time.monotonic() - shown.arrived + usual > limit

    def took(self, seconds: float) -> None:
        """How long the restoring of a round took in which a picture of this camera was."""
        self._recent.append(seconds)

    def fit(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The picture in the session's size and format."""
        if self._fit is None:
            assert self.source.streams is not None
            self._fit = Fit(self.source.streams)
        fitted = self._fit(frame)
        self.counts.fitted = self._fit.fitted
        return fitted

    def show_original(self, frame: av.VideoFrame) -> None:
        """Let an output that shows both see the picture before it is changed."""
        original = getattr(self.sink, "original", None)
        if original is not None:
            original(frame)

    def put(self, out: Out) -> None:
        """Give a picture to the outputs; an error there ends this camera."""
        if out.kind == "ended":
            if out.error is not None:
                self.fail(out.error)
            self.close()
            return
        if self.error is not None or self._closed:
            self._not_given(out)
            return
        try:
            if out.kind == "held":
                self._hold(out.pts)
            else:
                assert out.frame is not None
                self._give(out.frame)
                self._count(out)
        except GpenvidError as error:
            self._not_given(out)
            self.fail(error)

    def fail(self, error: GpenvidError) -> None:
        """End this camera for this reason."""
        if self.error is None:
            self.error = error
            log.error("%s", error if str(error).startswith(self.name) else f"{self.name}: {error}")
        self.stop.set()

    def close(self) -> None:
        """Finish the outputs."""
        if self._closed:
            return
        self._closed = True
        asked = self._stop.is_set()
        self.stop.set()
        if self.source.streams is None and self.error is None and not asked:
            self.fail(MediaError(f"{self.name}: no picture came: {self.source.reason or 'nobody sent any'}"))
        with self._lock:
            was_open, self._open = self._open, False
        if was_open:
            try:
                self.sink.close()
            except GpenvidError as error:
                self.fail(error)
        self._last = self._mark = None

    def report(self) -> CameraReport:
        """How it goes."""
        source = self.source
        states = getattr(self.sink, "states", [])
        received = asdict(source.counts)
        counts = PictureCounts(**asdict(self.counts))
        counts.dropped += source.counts.disordered
        return CameraReport(
            name=self.name,
            source=source.address.name,
            state="failed" if self.error is not None else source.state,
            pictures=counts,
            received=received,
            outputs=[asdict(state) for state in states if is_dataclass(state) and not isinstance(state, type)],
            latency={f"p{share}": self.latency.percentile(share / 100) for share in (50, 90, 99)},
            notes=[*self.notes, *getattr(self.sink, "notes", [])],
            error=None if self.error is None else str(self.error),
        )

    def _give(self, frame: av.VideoFrame) -> None:
        if not self._open:
            self._open_sink()
        self.sink.video(frame)
        self._last, self._mark = frame, None

    def _hold(self, pts: int) -> None:
        if self._last is None:
            return
        if self._mark is None:
            self._mark = marked(self._last)
        self.sink.video(copy(self._mark, pts))
        self.counts.held += 1

    def _open_sink(self) -> None:
        assert self.source.streams is not None
        try:
            self.sink.open(self.source.streams)
        except GpenvidError:
            self.sink.close()
            raise
        with self._lock:
            self._open = True
            for packet in self._early:
                self.sink.packet(packet)
            self._early.clear()

    def _sound(self, packet: av.Packet[Stream]) -> None:
        with self._lock:
            if self._closed or self.error is not None:
                return
            if not self._open:
                self._early.append(packet)
                return
            try:
                self.sink.packet(packet)
            except GpenvidError as error:
                self.fail(error)

    def _count(self, out: Out) -> None:
        if out.kind == "restored":
            self.counts.restored += 1
        else:
            self.counts.passed += 1
        self.latency.add(time.monotonic() - out.arrived)

    def _not_given(self, out: Out) -> None:
        if out.kind in ("restored", "passed"):
            with self._lock:
                self.counts.dropped += 1
