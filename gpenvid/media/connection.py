"""One attempt at a live source: the child process that talks to it, and the decoder of what it hands over."""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
from collections import OrderedDict
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import Flags
from av.container import InputContainer

from gpenvid.errors import GpenvidError
from gpenvid.media.address import Address
from gpenvid.media.color import convert
from gpenvid.media.demux import Answer, Ended, Knock, Message, Opened, Order, Received
from gpenvid.media.layouts import nearest_editable
from gpenvid.media.pixels import PictureTags, set_tags
from gpenvid.media.probe import ColorTags
from gpenvid.media.sinks import LiveStreams

_PROGRAM = "from gpenvid.media.demux import main; main()"
_GRACE = 0.5
_PENDING = 256


class BrokenError(GpenvidError):
    """The connection is of no more use. final: and another would not be either; absent: nobody was there."""

    def __init__(self, reason: str, *, final: bool = False, absent: bool = False) -> None:
        super().__init__(reason)
        self.final, self.absent = final, absent


class Connection:
    """A child process with a source. It is started early, so that only talking is left to do when `open` is called.

    `idle` is True while it waits for an order: before the first, and when it has said itself how one ended.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.idle = True
        self._damaged = 0
        self.rate: Fraction | None = None
        self.answer: bool | None = None
        self._header: InputContainer | None = None
        self._arrivals: OrderedDict[int, float] = OrderedDict()
        self._pipe, theirs = multiprocessing.Pipe()
        root = str(Path(__file__).parents[2])
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
                stdin=None if address.kind == "pipe" else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))},
            )

    def knock(self) -> None:
        """Have the child find out whether anybody is there; `receive` notes it in `answer`, None where unknown."""
        self.answer = None
        with suppress(OSError):
            self._pipe.send(Knock(self.address))

    def open(self, limit: float) -> None:
        """Have the child open the source. limit: seconds of silence after which it may end itself, 0 for never."""
        address = self.address
        self.idle = False
        self._header = None
        self._arrivals.clear()
        try:
            self._pipe.send(Order(address.target, address.format, address.options, address.paced, limit))
        except OSError as error:
            raise BrokenError("its demuxer could not be started") from error

    def receive(self, patience: float) -> Received | None:
        """Wait so many seconds for the next packet.

        Raises BrokenError when there will be none; EOFError where that is because the stream has come to its end.
        """
        try:
            message: Message | None = self._pipe.recv() if self._pipe.poll(patience) else None
        except (EOFError, OSError) as error:
            raise BrokenError("its demuxer died") from error
        if isinstance(message, Ended):
            self.idle = True
            if not message.error:
                raise EOFError
            raise BrokenError(message.error, final=message.final, absent=message.absent)
        if isinstance(message, Answer):
            self.answer = message.there
        elif isinstance(message, Opened):
            self._opened(message)
        elif isinstance(message, Received):
            return message
        elif message is not None:
            self._damaged += 1
        return None

    def hang_up(self) -> None:
        """End the child: ask, so that it can say goodbye to its peer, but don't wait long."""
        with suppress(OSError, subprocess.TimeoutExpired):
            self._pipe.send(None)
            self._child.wait(_GRACE)
        self.kill()

    def kill(self) -> None:
        """End the child at once."""
        self._child.kill()
        self._child.wait()
        self._pipe.close()

    def _opened(self, message: Opened) -> None:
        self.rate = message.rate
        self._header = av.open(
            io.BytesIO(message.header), "r", format="nut", options={"probesize": "32", "analyzeduration": "0"}
        )
        context = self._video.codec_context
        context.thread_type = "SLICE"  # threads over pictures would each hold one back
        context.flags |= Flags.low_delay

    @property
    def _video(self) -> av.VideoStream:
        assert self._header is not None
        return self._header.streams.video[0]

    @property
    def _audio(self) -> av.AudioStream | None:
        assert self._header is not None
        return next(iter(self._header.streams.audio), None)

    @property
    def codecs(self) -> str:
        """The codecs, for a line of the log."""
        sound = f", {self._audio.codec_context.codec.canonical_name}" if self._audio is not None else ""
        return f"{self._video.codec_context.codec.canonical_name}{sound}"

    @property
    def sound_parameters(self) -> tuple[str, int, str] | None:
        """Codec, sample rate and layout of the sound; None without any."""
        if self._audio is None:
            return None
        context = self._audio.codec_context
        return context.codec.canonical_name, context.sample_rate, context.layout.name

    def decode(self, packet: Received) -> list[av.VideoFrame]:
        """The pictures that a packet of the picture stream completes, in the source's time; damage is counted."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None:
            self._arrivals[stamp] = packet.arrived
            if len(self._arrivals) > _PENDING:
                self._arrivals.popitem(last=False)
        coded = av.Packet(packet.data)
        coded.pts, coded.dts, coded.time_base = packet.pts, packet.dts, packet.time_base
        coded.is_keyframe = packet.keyframe
        try:
            frames = self._video.codec_context.decode(coded)
        except av.error.FFmpegError:
            self._damaged += 1
            return []
        for frame in frames:
            frame.time_base = packet.time_base
        return frames

    def damages(self) -> int:
        """Packets that could not be read or decoded since this was last asked."""
        damaged, self._damaged = self._damaged, 0
        return damaged

    def arrival(self, frame: av.VideoFrame, default: float) -> float:
        """When the packet of this picture arrived, on the monotonic clock."""
        return self._arrivals.pop(frame.pts, default) if frame.pts is not None else default

    def editable(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The picture in a format that can be edited in place, with its tags."""
        wanted = nearest_editable(frame.format.name)
        if wanted != frame.format.name:
            frame = convert(frame, wanted)
        set_tags(frame, PictureTags(self._aspect))
        return frame

    @property
    def _aspect(self) -> Fraction:
        return Fraction(self._video.codec_context.sample_aspect_ratio or 1) or Fraction(1)

    def streams(self, frame: av.VideoFrame) -> LiveStreams:
        """What there is, told by the first picture."""
        return LiveStreams(
            frame.width,
            frame.height,
            nearest_editable(frame.format.name),
            self.rate,
            self._aspect,
            ColorTags(int(frame.color_primaries), int(frame.color_trc), int(frame.colorspace), int(frame.color_range)),
            self._audio,
        )
