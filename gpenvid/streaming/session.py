"""Live: sources to outputs with better faces, for weeks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from gpenvid.enhancer import Enhancer
from gpenvid.errors import GpenvidError, MediaError, OptionsError
from gpenvid.faces.detect import Detector
from gpenvid.gpen.restorer import Restorer
from gpenvid.media.address import parse_address
from gpenvid.media.live import Held, Shown
from gpenvid.media.sinks import Sink
from gpenvid.media.sinks.choose import choose_sink
from gpenvid.options import LIVE_STAGES, STAGES, LiveOptions, Options, SinkOptions, SourceOptions
from gpenvid.run import described
from gpenvid.stages import Lane, Taken, latest, prefetch
from gpenvid.streaming.camera import Camera, Out
from gpenvid.streaming.health import health, live_metrics
from gpenvid.streaming.pace import LADDER, Pace
from gpenvid.streaming.report import LiveReport
from gpenvid.streaming.status import LOOPBACK, StatusServer
from gpenvid.streaming.together import Task, Together

log = logging.getLogger(__name__)

PASS_DEPTH = 64
"""Late pictures that wait to be passed through at most; beyond that, the oldest is dropped."""

WAIT_DEPTH = 4
"""Pictures that wait where nothing is ever late."""

_OWN = ("encoder", "tracker", *LIVE_STAGES)
"""Stages that each camera may set for itself; the networks are for all."""


@dataclass(frozen=True, kw_only=True)
class CameraSpec:
    """One camera of several. sink: used instead of the outputs; options: those that differ from the others'."""

    name: str
    source: str
    outputs: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    sink: Sink | None = None


def live(
    source: str,
    outputs: str | Sequence[str] = (),
    *,
    sink: Sink | None = None,
    report: str | Path | None = None,
    stop: threading.Event | None = None,
    status_port: int | None = None,
    status_host: str = LOOPBACK,
    restorer: Restorer | None = None,
    detector: Detector | None = None,
    **options: Any,
) -> LiveReport:
    """Make the faces of a live source better until it ends, `stop` is set or `duration` is over.

    source: a URL, a device, `webcam:0`, `x11grab:`, an SDP file or `-`. outputs: see `gpenvid live --help`; sink: used
    instead. report: a JSON file that receives the report at the end. status_port, status_host: where `/metrics`
    and `/healthz` answer. options: any field of the dataclasses in `gpenvid.options`.
    Raises MediaError, WeightsError, DeviceError or OptionsError, all GpenvidError, with a one-line message.
    """
    words = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    done = live_cameras(
        [CameraSpec(name="", source=source, outputs=words, sink=sink)],
        report=report,
        stop=stop,
        status_port=status_port,
        status_host=status_host,
        restorer=restorer,
        detector=detector,
        **options,
    )
    if done.cameras[0].error is not None:
        raise MediaError(done.cameras[0].error)
    return done


def live_cameras(
    cameras: Sequence[CameraSpec],
    *,
    report: str | Path | None = None,
    stop: threading.Event | None = None,
    status_port: int | None = None,
    status_host: str = LOOPBACK,
    restorer: Restorer | None = None,
    detector: Detector | None = None,
    **options: Any,
) -> LiveReport:
    """As `live`, for several cameras with one restorer; the faces of all are restored in one batch.

    A camera that fails ends alone; its report carries the error. Raises GpenvidError only for what concerns all.
    """
    session = _Session(cameras, options, restorer, detector, stop or threading.Event())
    done = session.run(status_port, status_host)
    if report is not None:
        done.write(report)
    return done


def _sorted(choices: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the live stages by stage, and all others."""
    rest, stages = dict(choices), {}
    for stage, options in LIVE_STAGES.items():
        names = {each.name for each in fields(options)}
        stages[stage] = options(**{name: rest.pop(name) for name in names & rest.keys()})
    return stages, rest


class _Session:
    """All cameras from their first picture to their last."""

    def __init__(
        self,
        cameras: Sequence[CameraSpec],
        options: dict[str, Any],
        restorer: Restorer | None,
        detector: Detector | None,
        stop: threading.Event,
    ) -> None:
        names = [spec.name for spec in cameras]
        if not cameras or len(set(names)) < len(names):
            raise OptionsError(f"cameras {', '.join(names) or 'none'}: each needs a name of its own")
        if options.get("lag"):
            raise OptionsError(f"--lag {options['lag']}: live pictures can't wait for later ones; leave it out")
        self.stop = stop
        self.pace = Pace()
        self.cameras = [self._camera(spec, options) for spec in cameras]
        chosen = Options.of(**(_sorted(options)[1] | {"lag": 0}))
        self.enhancer = Enhancer(chosen, restorer=restorer, detector=detector)
        self.together = Together(self.enhancer)
        self.began = time.monotonic()

    def _camera(self, spec: CameraSpec, options: dict[str, Any]) -> Camera:
        own = {each.name for stage in _OWN for each in fields((STAGES | LIVE_STAGES)[stage])}
        if strange := spec.options.keys() - own:
            raise OptionsError(f"camera {spec.name}: {', '.join(sorted(strange))}: can't be chosen for one camera")
        stages, rest = _sorted(options | spec.options)
        general = Options.of(**(rest | {"lag": 0}))
        source, live, sink = stages["source"], stages["live"], stages["sink"]
        assert isinstance(source, SourceOptions) and isinstance(live, LiveOptions) and isinstance(sink, SinkOptions)
        address = parse_address(spec.source, source)
        outputs: Sink = spec.sink or choose_sink(spec.outputs, general.encoder, sink)
        return Camera(spec.name or address.name, address, outputs, source, live, general.tracker, self.stop)

    def run(self, status_port: int | None, status_host: str) -> LiveReport:
        with ExitStack() as stack:
            if status_port is not None:
                metrics = live_metrics(self.cameras, self.pace, self.enhancer.counts)
                server = StatusServer(metrics, lambda: health(self.cameras), host=status_host, port=status_port)
                stack.enter_context(server)
                log.info("status: http://%s:%d/metrics and /healthz", server.host, server.port)
            for camera in self.cameras:
                stack.callback(camera.close)
            rounds = stack.enter_context(closing(prefetch(self._rounds(), 1, "enhance")))
            stack.callback(self._end)
            for outs in rounds:
                for camera, out in outs:
                    camera.put(out)
        return self._report()

    def _end(self) -> None:
        """Have every source end, so that no thread waits for one."""
        for camera in self.cameras:
            camera.stop.set()

    def _rounds(self) -> Iterator[list[tuple[Camera, Out]]]:
        """Whatever is there, taken together, enhanced together."""
        depths = {"drop": 1, "pass": PASS_DEPTH, "wait": WAIT_DEPTH}
        lanes = [Lane(camera.source.items(), depths[camera.late], camera.late == "wait") for camera in self.cameras]
        with closing(latest(lanes, self._dropped)) as news:
            for taken in news:
                outs, tasks, fresh = [], [], []
                for each in taken:
                    camera = self.cameras[each.lane]
                    for out, task in self._sort(camera, each):
                        outs.append((camera, out))
                        if task is not None:
                            tasks.append(task)
                            fresh.append(camera)
                began = time.monotonic()
                self.together.enhance(tasks)
                seconds = time.monotonic() - began
                for camera in fresh:
                    camera.took(seconds)
                if not all(camera.late == "wait" for camera in self.cameras):
                    self._adjust(seconds)
                yield outs

    def _dropped(self, lane: int, item: Shown | Held) -> None:
        if isinstance(item, Shown):
            self.cameras[lane].overtaken(dropped=True)

    def _sort(self, camera: Camera, taken: Taken[Shown | Held]) -> Iterator[tuple[Out, Task | None]]:
        """What becomes of each picture that waited."""
        effort = LADDER[0] if camera.late == "wait" or not camera.live.degrade else self.pace.effort
        last = max((i for i, item in enumerate(taken.items) if isinstance(item, Shown)), default=-1)
        for i, item in enumerate(taken.items):
            if isinstance(item, Held):
                yield Out("held", pts=item.pts), None
                continue
            frame = camera.fit(item.frame)
            if camera.late != "wait" and (i != last or camera.too_old(item)):
                if camera.late == "pass":
                    camera.overtaken()
                    yield Out("passed", frame, item.arrived), None
                else:
                    camera.overtaken(dropped=True)
            elif effort.faces == 0:
                yield Out("passed", frame, item.arrived), None
            else:
                camera.show_original(frame)
                yield Out("restored", frame, item.arrived), Task(camera.following, frame, effort)
        if taken.ended:
            error = taken.error
            if error is not None and not isinstance(error, GpenvidError):
                # A fault of this program, but the other cameras can go on.
                log.error("%s: %r", camera.name, error, exc_info=error)
                error = MediaError(f"{camera.name}: {type(error).__name__}: {error}")
            yield Out("ended", error=error), None

    def _adjust(self, seconds: float) -> None:
        """More effort or less, after a round of work."""
        before = self.pace.rung
        self.pace.took(seconds, sum(camera.take_overtaken() for camera in self.cameras))
        if self.pace.rung != before:
            log.info("effort: %s", self.pace.effort)

    def _report(self) -> LiveReport:
        enhancer = self.enhancer
        return LiveReport(
            cameras=[camera.report() for camera in self.cameras],
            model=described(enhancer.restorer),
            detector=described(enhancer.detector),
            options=asdict(enhancer.options),
            faces=asdict(enhancer.counts),
            stages={stage: round(seconds, 4) for stage, seconds in enhancer.clock.seconds.items()},
            degraded=self.pace.steps,
            seconds=time.monotonic() - self.began,
        )
