"""A camera of the tests' own: an RTSP server that can do everything wrong that a camera can.

Pictures are encoded while they are sent; each carries the time at which it is due, painted as bright and dark
blocks.
"""

from __future__ import annotations

import base64
import random
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from fakes import picture

_BITS = 32
_BLOCK = 4
_RTP_CLOCK = 90_000
_ULAW_RATE = 8000
_NTP = 2_208_988_800


def paint(rgb: np.ndarray, number: int) -> None:
    """Write a number below 2^32 into the bottom rows as two rows of 16 blocks of 8x8 pixels."""
    height = rgb.shape[0]
    for bit in range(_BITS):
        row, column = divmod(bit, 16)
        y, x = height - 16 + 8 * row, 8 * column
        rgb[y : y + 8, x : x + 8] = 235 if number >> bit & 1 else 16


def painted(rgb: np.ndarray) -> int:
    """Read the number back."""
    height, number = rgb.shape[0], 0
    for bit in range(_BITS):
        row, column = divmod(bit, 16)
        y, x = height - 16 + 8 * row, 8 * column
        number |= int(rgb[y + 2 : y + 6, x + 2 : x + 6].mean() > 125) << bit
    return number


def milliseconds() -> int:
    """The monotonic clock, as it is painted."""
    return int(time.monotonic() * 1000) & 0xFFFFFFFF


@dataclass
class Camera:
    """What is sent, and what is done wrong.

    silent_after, reset_after: pictures of a connection after which nothing comes any more, or the connection is torn
    in the middle of a packet. sizes: of the pictures, the next one every `change_every` pictures. first_timestamp: of
    RTP; jump_after: pictures after which it jumps by jump_by ticks. corrupt: share of pictures that are damaged.
    credentials: user and password that are asked for. missing: answers 404.
    """

    rate: int = 15
    sizes: tuple[tuple[int, int], ...] = ((160, 120),)
    change_every: int = 15
    codec: str = "h264"
    sound: bool = True
    silent_after: int | None = None
    reset_after: int | None = None
    first_timestamp: int = 1000
    jump_after: int | None = None
    jump_by: int = 0
    corrupt: float = 0.0
    credentials: tuple[str, str] | None = None
    missing: bool = False
    face: bool = True
    key_every: int = 5
    seed: int = 0
    connections: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    sent: int = field(default=0, init=False)


class CameraServer:
    """Serves a `Camera` on a loopback port from `start` to `stop`; the port stays the same."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.port = 0
        self._running = threading.Event()
        self._threads: list[threading.Thread] = []
        self._clients: list[socket.socket] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/camera"

    def __enter__(self) -> CameraServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._listener.listen()
        self._running.set()
        self._spawn(self._accept)

    def stop(self) -> None:
        """Die: every connection is gone at once, the port is closed."""
        self._running.clear()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            clients, self._clients = self._clients, []
        for client in clients:
            _reset(client)
        for thread in self._threads:
            thread.join(10)
        self._threads.clear()

    def _spawn(self, work, *arguments) -> None:
        thread = threading.Thread(target=work, args=arguments, name="camera", daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        while self._running.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._clients.append(client)
            self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            with suppress(OSError):
                self._converse(client)
        finally:
            with self._lock:
                if client in self._clients:
                    self._clients.remove(client)
            client.close()

    def _converse(self, client: socket.socket) -> None:
        camera, lines = self.camera, client.makefile("rb")
        while self._running.is_set() and (request := lines.readline()):
            if request[:1] == b"$":
                continue
            headers = {}
            while (line := lines.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                headers[name.lower()] = value.strip().decode()
            method = request.split(b" ")[0].decode()
            status, more, body = self._answer(method, headers)
            head = [f"RTSP/1.0 {status}", f"CSeq: {headers.get(b'cseq', '0')}", "Session: 1", *more]
            if body:
                head.append(f"Content-Length: {len(body)}")
            client.sendall("\r\n".join([*head, "", body]).encode())
            if method == "PLAY" and status.startswith("200"):
                camera.connections += 1
                _Stream(camera, client, self._running).send()
                return

    def _answer(self, method: str, headers: dict[bytes, str]) -> tuple[str, list[str], str]:
        camera = self.camera
        if method == "OPTIONS":
            return "200 OK", ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"], ""
        if camera.missing:
            camera.refused += 1
            return "404 Not Found", [], ""
        if camera.credentials is not None:
            wanted = base64.b64encode(":".join(camera.credentials).encode()).decode()
            if headers.get(b"authorization") != f"Basic {wanted}":
                return "401 Unauthorized", ['WWW-Authenticate: Basic realm="camera"'], ""
        if method == "DESCRIBE":
            name = {"h264": "H264", "hevc": "H265"}[camera.codec]
            sdp = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=camera", "t=0 0", "m=video 0 RTP/AVP 96"]
            sdp += [f"a=rtpmap:96 {name}/90000", f"a=framerate:{camera.rate}", "a=control:0"]
            if camera.sound:
                sdp += ["m=audio 0 RTP/AVP 0", "a=control:1"]
            return "200 OK", ["Content-Type: application/sdp"], "\r\n".join([*sdp, ""])
        if method == "SETUP":
            return "200 OK", [f"Transport: {headers.get(b'transport', '')}"], ""
        return "200 OK", [], ""


class _Stream:
    """One connection's pictures and sound, in real time."""

    def __init__(self, camera: Camera, client: socket.socket, running: threading.Event) -> None:
        self.camera, self.client, self.running = camera, client, running
        self.random = random.Random(camera.seed + camera.connections)
        self.sequence = [0, 0]
        self.start = time.monotonic()
        self.encoder = None

    def send(self) -> None:
        camera = self.camera
        spoken = 0
        for number in range(1 << 30):
            due = self.start + number / camera.rate
            time.sleep(max(0.0, due - time.monotonic()))
            if not self.running.is_set():
                return
            if camera.silent_after is not None and number >= camera.silent_after:
                while self.running.wait(0.05) and self.running.is_set():
                    time.sleep(0.05)
                return
            if number % camera.rate == 0:
                self._report(0, self._timestamp(number), due)
                if camera.sound:
                    self._report(1, round((due - self.start) * _ULAW_RATE), due)
            units = self._units(number)
            if camera.reset_after is not None and number >= camera.reset_after:
                self.client.sendall(struct.pack(">cBH", b"$", 0, 5000) + bytes(100))
                _reset(self.client)
                return
            for i, unit in enumerate(units):
                self._packet(0, 96, self._timestamp(number), unit, i + 1 == len(units))
            camera.sent += 1
            while camera.sound and spoken / _ULAW_RATE < (number + 1) / camera.rate:
                self._packet(1, 0, spoken, self._tone(spoken), False)
                spoken += 160

    def _timestamp(self, number: int) -> int:
        camera = self.camera
        jumped = camera.jump_by if camera.jump_after is not None and number >= camera.jump_after else 0
        return (camera.first_timestamp + number * _RTP_CLOCK // camera.rate + jumped) & 0xFFFFFFFF

    def _units(self, number: int) -> list[bytes]:
        """The NAL units of the next picture; some of them damaged, if that is wanted."""
        camera = self.camera
        width, height = camera.sizes[number // camera.change_every % len(camera.sizes)]
        if self.encoder is None or (self.encoder.width, self.encoder.height) != (width, height):
            self.encoder = av.CodecContext.create({"h264": "libx264", "hevc": "libx265"}[camera.codec], "w")
            self.encoder.width, self.encoder.height, self.encoder.pix_fmt = width, height, "yuv420p"
            self.encoder.time_base, self.encoder.framerate = Fraction(1, camera.rate), camera.rate
            self.encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20"}
            self.encoder.options |= (
                {"x264-params": f"keyint={camera.key_every}:scenecut=0:repeat-headers=1:sliced-threads=0:threads=1"}
                if camera.codec == "h264"
                else {"x265-params": f"keyint={camera.key_every}:repeat-headers=1:log-level=none:pools=1"}
            )
        rgb = picture(width, height, *([(width / 2, height / 2, height / 4)] if camera.face else []))
        paint(rgb, int((self.start + number / camera.rate) * 1000) & 0xFFFFFFFF)
        frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, camera.rate)
        data = b"".join(bytes(packet) for packet in self.encoder.encode(frame))
        units = [unit for unit in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
        if camera.corrupt and self.random.random() < camera.corrupt:
            units = [self._damaged(unit) for unit in units]
        return units

    def _damaged(self, unit: bytes) -> bytes:
        wrong = bytearray(unit)
        for _ in range(max(1, len(wrong) // 20)):
            wrong[self.random.randrange(1, len(wrong))] = self.random.randrange(256)
        return bytes(wrong)

    def _tone(self, start: int) -> bytes:
        """20 ms of sound; its first four samples are the time at which it begins, as `milliseconds` has it."""
        return struct.pack(">I", int((self.start + start / _ULAW_RATE) * 1000) & 0xFFFFFFFF) + _tone(start)[4:]

    def _packet(self, channel: int, kind: int, timestamp: int, payload: bytes, marker: bool) -> None:
        sequence = self.sequence[channel] = (self.sequence[channel] + 1) & 0xFFFF
        head = struct.pack(">BBHII", 0x80, kind | marker << 7, sequence, timestamp & 0xFFFFFFFF, channel + 1)
        self._interleaved(2 * channel, head + payload)

    def _report(self, channel: int, timestamp: int, moment: float) -> None:
        """RTCP: which time on the wall a timestamp stands for."""
        ntp = _NTP + time.time() + moment - time.monotonic()
        body = struct.pack(">IIIIII", channel + 1, int(ntp), int(ntp % 1 * (1 << 32)), timestamp & 0xFFFFFFFF, 0, 0)
        self._interleaved(2 * channel + 1, struct.pack(">BBH", 0x80, 200, 6) + body)

    def _interleaved(self, channel: int, data: bytes) -> None:
        self.client.sendall(struct.pack(">cBH", b"$", channel, len(data)) + data)


def _tone(start: int) -> bytes:
    """20 ms of a quiet 440 Hz tone as mu-law, at sample `start`."""
    wave = 800 * np.sin(2 * np.pi * 440 * np.arange(start, start + 160) / _ULAW_RATE)
    magnitude = np.minimum(np.abs(wave) + 132, 32635).astype(int)
    exponent = np.floor(np.log2(magnitude)).astype(int) - 7
    code = exponent << 4 | magnitude >> exponent + 3 & 15
    return ((~(code | np.where(wave < 0, 128, 0))) & 255).astype(np.uint8).tobytes()


def _reset(client: socket.socket) -> None:
    """Close the connection with RST."""
    with suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.shutdown(socket.SHUT_RD)
        client.close()
