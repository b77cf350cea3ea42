"""What the status endpoint tells, read over a real connection on loopback."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request

import pytest

from gpenvid.errors import OptionsError
from gpenvid.streaming.status import CONTENT_TYPE, Metrics, StatusServer


def get(port: int, path: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def filled() -> Metrics:
    metrics = Metrics()
    pictures = metrics.counter("gpenvid_pictures_total", "Pictures by what became of them.")
    pictures.add(stream="door", fate="restored")
    pictures.add(2, stream="door", fate="dropped")
    pictures.add(stream="door", fate="restored")
    metrics.gauge("gpenvid_lag_seconds", "Age of the last picture.\nAt the sink.").set(0.25)
    metrics.gauge("gpenvid_up", "Whether it is there.").set(1, url='rtsp://a:b@c/"x"\\')
    return metrics


EXPECTED = """\
# HELP gpenvid_pictures_total Pictures by what became of them.
# TYPE gpenvid_pictures_total counter
gpenvid_pictures_total{fate="dropped",stream="door"} 2
gpenvid_pictures_total{fate="restored",stream="door"} 2
# HELP gpenvid_lag_seconds Age of the last picture.\\nAt the sink.
# TYPE gpenvid_lag_seconds gauge
gpenvid_lag_seconds 0.25
# HELP gpenvid_up Whether it is there.
# TYPE gpenvid_up gauge
gpenvid_up{url="rtsp://***@c/\\"x\\"\\\\"} 1
"""


def test_metrics_in_text_exposition_format() -> None:
    with StatusServer(filled()) as server:
        assert get(server.port, "/metrics") == (200, CONTENT_TYPE, EXPECTED)
        assert get(server.port, "/metrics?debug=1")[2] == EXPECTED


def test_what_is_counted_elsewhere_is_fetched_at_every_scrape() -> None:
    metrics, count = Metrics(), iter([3, 4])
    total = metrics.counter("gpenvid_frames_total", "Frames.")
    metrics.before_scrape(lambda: total.set(next(count)))
    with StatusServer(metrics) as server:
        assert get(server.port, "/metrics")[2].splitlines()[-1] == "gpenvid_frames_total 3"
        assert get(server.port, "/metrics")[2].splitlines()[-1] == "gpenvid_frames_total 4"


def test_health_and_unknown_paths() -> None:
    reason = ""
    with StatusServer(Metrics(), lambda: reason) as server:
        assert get(server.port, "/healthz")[::2] == (200, "ok\n")
        reason = "rtsp://a:b@c/d: no picture for 4 s"
        assert get(server.port, "/healthz")[::2] == (503, "rtsp://***@c/d: no picture for 4 s\n")
        assert get(server.port, "/")[::2] == (404, "try /metrics or /healthz\n")


def test_a_silent_client_does_not_shut_others_out() -> None:
    with StatusServer(Metrics()) as server, socket.create_connection(("127.0.0.1", server.port)):
        assert get(server.port, "/healthz")[0] == 200


def test_the_port_is_given_back_and_no_thread_is_left() -> None:
    with StatusServer(Metrics()) as server, pytest.raises(OptionsError) as refused:
        StatusServer(Metrics(), port=server.port)
    assert str(refused.value).startswith(f"--status-port {server.port}: can't listen on 127.0.0.1 (address")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpenvid")]
    with StatusServer(Metrics(), port=server.port):
        assert get(server.port, "/healthz")[0] == 200


def test_a_host_that_is_not_this_machine_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"^--status-port 0: can't listen on 203\.0\.113\.1 \("):
        StatusServer(Metrics(), host="203.0.113.1")


def test_a_counter_never_falls_and_a_name_has_one_kind() -> None:
    metrics = Metrics()
    with pytest.raises(ValueError, match="can't go down by 1"):
        metrics.counter("gpenvid_x_total", "X.").add(-1)
    with pytest.raises(ValueError, match="gpenvid_x_total is a counter, not a gauge"):
        metrics.gauge("gpenvid_x_total", "X.")
