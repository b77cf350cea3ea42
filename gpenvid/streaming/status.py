"""How it goes, for those who watch from outside: counters in Prometheus' text format, and whether all is well."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Literal

from gpenvid.errors import OptionsError
from gpenvid.redact import redacted
from gpenvid.stages import background

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of Prometheus' text exposition format."""

LOOPBACK = "127.0.0.1"
"""Only this machine can ask."""

_CLIENT_TIMEOUT = 2.0

Labels = tuple[tuple[str, str], ...]


class Metric:
    """One counter or gauge with a value for every set of labels. Safe from any thread."""

    def __init__(self, name: str, kind: Literal["counter", "gauge"], help: str) -> None:
        self.name, self.kind, self.help = name, kind, help
        self._values: dict[Labels, float] = {}
        self._lock = threading.Lock()

    def set(self, value: float, **labels: str) -> None:
        """Set the value for these labels. For a counter: a total that is counted elsewhere."""
        with self._lock:
            self._values[tuple(sorted(labels.items()))] = value

    def add(self, value: float = 1, **labels: str) -> None:
        """Add to the value for these labels, which starts at 0. Raises ValueError for a counter that would fall."""
        if self.kind == "counter" and value < 0:
            raise ValueError(f"{self.name}: a counter can't go down by {-value}")
        key = tuple(sorted(labels.items()))
        with self._lock:
            self._values[key] = self._values.get(key, 0) + value

    def lines(self) -> list[str]:
        """The metric in text exposition format, its values in the order of their labels."""
        with self._lock:
            values = sorted(self._values.items())
        head = [f"# HELP {self.name} {_escaped(self.help)}", f"# TYPE {self.name} {self.kind}"]
        return head + [f"{self.name}{_braces(labels)} {_number(value)}" for labels, value in values]


class Metrics:
    """All counters and gauges of a process, in the order in which they were declared."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}
        self._refresh: list[Callable[[], None]] = []

    def counter(self, name: str, help: str) -> Metric:
        """Declare a counter, or get the one that was declared; by custom its name ends with `_total`."""
        return self._declare(name, "counter", help)

    def gauge(self, name: str, help: str) -> Metric:
        """Declare a gauge, or get the one that was declared."""
        return self._declare(name, "gauge", help)

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call this each time before the metrics are told, to `set` what is counted elsewhere."""
        self._refresh.append(refresh)

    def text(self) -> str:
        """Everything in Prometheus' text exposition format 0.0.4."""
        for refresh in self._refresh:
            refresh()
        return "".join(f"{line}\n" for metric in list(self._metrics.values()) for line in metric.lines())

    def _declare(self, name: str, kind: Literal["counter", "gauge"], help: str) -> Metric:
        metric = self._metrics.setdefault(name, Metric(name, kind, help))
        if metric.kind != kind:
            raise ValueError(f"{name} is a {metric.kind}, not a {kind}")
        return metric


class StatusServer:
    """Answers `/metrics` with the metrics and `/healthz` with 200 `ok`, or with 503 and what is wrong.

    health: gives "" when all is well, else the reason in a line; it is asked in the server's thread. Requests are
    answered one after the other, and a client that is silent for two seconds is hung up on.
    """

    def __init__(
        self, metrics: Metrics, health: Callable[[], str] = str, *, host: str = LOOPBACK, port: int = 0
    ) -> None:
        """Take the port; 0 takes a free one, told by `port`. host: a name or address of this machine.

        Raises OptionsError if the port is taken or not permitted, or the host isn't this one.
        """
        try:
            self._server = HTTPServer((host, port), _handler(metrics, health))
        except (OSError, OverflowError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise OptionsError(f"--status-port {port}: can't listen on {host} ({reason})") from error
        self.host, self.port = host, int(self._server.server_address[1])
        self._running = ExitStack()

    def __enter__(self) -> StatusServer:
        """Answer from now on, in a thread of its own."""
        self._running.callback(self._server.server_close)
        self._running.enter_context(background(lambda: self._server.serve_forever(0.05), "status"))
        self._running.callback(self._server.shutdown)
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop answering and give the port back."""
        self._running.close()


def _handler(metrics: Metrics, health: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _CLIENT_TIMEOUT
        server_version, sys_version = "gpenvid", ""

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.partition("?")[0]
            code, body, kind = 200, "", "text/plain; charset=utf-8"
            if path == "/metrics":
                body, kind = metrics.text(), CONTENT_TYPE
            elif path == "/healthz":
                reason = health()
                code, body = (503, f"{redacted(reason)}\n") if reason else (200, "ok\n")
            else:
                code, body = 404, "try /metrics or /healthz\n"
            data = body.encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if with_body:
                self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            """Say nothing: who looks every few seconds would fill the log."""

    return Handler


def _braces(labels: Labels) -> str:
    return (
        "{" + ",".join(f'{name}="{_escaped(redacted(value), quotes=True)}"' for name, value in labels) + "}"
        if labels
        else ""
    )


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def _number(value: float) -> str:
    return f"{value:d}" if isinstance(value, int) else repr(float(value)).replace("inf", "Inf").replace("nan", "NaN")
