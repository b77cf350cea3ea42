"""What `/metrics` and `/healthz` tell of a live session."""

from __future__ import annotations

from collections.abc import Sequence

from gpenvid.report import Counts
from gpenvid.streaming.camera import Camera
from gpenvid.streaming.pace import Pace
from gpenvid.streaming.status import Metrics


def live_metrics(cameras: Sequence[Camera], pace: Pace, faces: Counts) -> Metrics:
    """Counters and gauges of a session, read anew at every scrape."""
    metrics = Metrics()
    up = metrics.gauge("gpenvid_source_up", "1 while pictures come from the source.")
    received = metrics.counter("gpenvid_source_events_total", "What happened to a source, by kind.")
    away = metrics.counter("gpenvid_source_away_seconds_total", "Seconds without the source; told when it is back.")
    pictures = metrics.counter("gpenvid_pictures_total", "Pictures by what became of them.")
    age = metrics.gauge("gpenvid_latency_seconds", "Age of pictures from arrival to encoded, by quantile.")
    output_up = metrics.gauge("gpenvid_output_up", "1 while an output takes pictures.")
    output_lost = metrics.counter("gpenvid_output_dropped_total", "Pictures that an output had to drop.")
    rung = metrics.gauge("gpenvid_effort_rung", "0: all is done for every picture; higher: less.")
    restored = metrics.counter("gpenvid_faces_restored_total", "Faces restored.")

    def refresh() -> None:
        rung.set(pace.rung)
        restored.set(faces.restored)
        for camera in cameras:
            told = camera.report()
            up.set(int(told.state == "live"), camera=camera.name)
            for kind, count in told.received.items():
                if kind == "away":
                    away.set(count, camera=camera.name)
                else:
                    received.set(count, camera=camera.name, kind=kind)
            for fate in ("restored", "passed", "dropped", "held"):
                pictures.set(getattr(told.pictures, fate), camera=camera.name, fate=fate)
            for share in (0.5, 0.9, 0.99):
                latency = camera.latency.percentile(share)
                if latency is not None:
                    age.set(latency, camera=camera.name, quantile=f"{share:g}")
            for output in told.outputs:
                output_up.set(int(output["state"] == "open"), camera=camera.name, output=output["name"])
                output_lost.set(output["dropped"], camera=camera.name, output=output["name"])

    metrics.before_scrape(refresh)
    return metrics


def health(cameras: Sequence[Camera]) -> str:
    """What is wrong, in a line; "" when every camera gives pictures and every output takes them."""
    wrong = []
    for camera in cameras:
        if camera.error is not None or camera.source.state in ("connecting", "away"):
            wrong.append(f"{camera.name}: {camera.error or camera.source.reason or camera.source.state}")
        for output in camera.report().outputs:
            if output["state"] in ("waiting", "failed"):
                wrong.append(output["error"] or f"{output['name']}: {output['state']}")
    return "; ".join(wrong)
