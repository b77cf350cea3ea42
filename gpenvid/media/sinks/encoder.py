"""Pictures become packets once, however many outputs take them: low delay, decodable from regular points on."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any, cast

import av
from av.codec.codec import find_best_pix_fmt_of_list
from av.codec.context import Flags
from av.video.frame import PictureType
from av.video.stream import VideoStream

from gpenvid.errors import MediaError, OptionsError
from gpenvid.media.color import convert
from gpenvid.media.encoder import KEPT, RECIPES, Recipe, output_colors
from gpenvid.media.layouts import duplicate
from gpenvid.media.sinks import TIME_BASE, LiveStreams
from gpenvid.media.sinks.packets import EncodedPacket, Track
from gpenvid.options import EncoderOptions

VIDEO = "video"
"""The name of the track."""

DEFAULT_CODEC = "libx264"
_LOW_DELAY: dict[str, dict[str, str]] = {
    "libx264": {"tune": "zerolatency", "preset": "veryfast", "forced-idr": "1", "crf": "21"},
    "libx265": {"tune": "zerolatency", "preset": "ultrafast", "forced-idr": "1", "crf": "24"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "b": "4M"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "b": "4M"},
}
_EVERYWHERE = "yuv420p"
_USUAL_RATE = Fraction(25)
_KEYFRAMES_ASKED = 500_000


class LiveEncoder:
    """The one encoder of a live session: no pictures held back, none that refer to later ones.

    A key picture comes at least every so many seconds, exactly timed, and when asked for.
    """

    def __init__(self, streams: LiveStreams, options: EncoderOptions, keyframes: float) -> None:
        """Open the encoder. Raises OptionsError for an encoder or an option that can't do it."""
        self.notes: list[str] = []
        self._streams = streams
        self._keyframes = round(keyframes / TIME_BASE)
        self._last_key: int | None = None
        self._asked = False
        name = DEFAULT_CODEC if options.codec == "auto" else options.codec
        name = next(iter(KEPT.get(name, ())), name)
        # A stream of a container that nobody reads: outputs take the encoder's parameters from it.
        self._container = av.open(cast(Any, io.BytesIO()), "w", format="nut")
        try:
            if av.Codec(name, "w").type != "video":
                raise ValueError(name)
            stream = cast(VideoStream, self._container.add_stream(name, rate=self._rate()))
        except (ValueError, av.error.FFmpegError) as error:
            raise OptionsError(f"--codec {options.codec}: is no video encoder of this FFmpeg") from error
        self.context = stream.codec_context
        self.pix_fmt = self._choose_pix_fmt(name)
        self._configure(name, options)
        try:
            self.context.open()
            if self.context.options:
                unknown = ", ".join(sorted(self.context.options))
                raise OptionsError(f"--encoder-option {unknown}: {name} has no such option")
            self._container.start_encoding()
        except (ValueError, av.error.FFmpegError) as error:
            if isinstance(error, OptionsError):
                raise
            size = f"{self.context.width}x{self.context.height}"
            raise OptionsError(f"--codec {name}: the encoder refuses {size} {self.pix_fmt} with its options") from error
        self.track = Track(VIDEO, self.context.codec.canonical_name, stream)

    def ask_for_key(self) -> None:
        """Make one of the next pictures a key picture, for an output that has just come; from any thread."""
        self._asked = True

    def encode(self, frame: av.VideoFrame) -> list[EncodedPacket]:
        """The packets of one picture, one with most encoders. The picture isn't changed.

        Raises MediaError if the encoder fails.
        """
        assert frame.pts is not None and frame.time_base is not None
        time = round(frame.pts * frame.time_base / TIME_BASE)
        frame = self._fitted(frame)
        frame.pts, frame.time_base = time, TIME_BASE
        since = None if self._last_key is None else time - self._last_key
        key = since is None or since >= self._keyframes or (self._asked and since >= _KEYFRAMES_ASKED)
        frame.pict_type = PictureType.I if key else PictureType.NONE
        if key:
            self._last_key, self._asked = time, False
        return self._packets(frame)

    def flush(self) -> list[EncodedPacket]:
        """What the encoder still holds. Raises MediaError if it fails."""
        return self._packets(None)

    def _packets(self, frame: av.VideoFrame | None) -> list[EncodedPacket]:
        try:
            packets = self.context.encode(frame)
        except av.error.FFmpegError as error:
            raise MediaError(f"the encoder failed ({(error.strerror or str(error)).lower()})") from error
        return [copy for each in packets if (copy := EncodedPacket.of(each, VIDEO)) is not None]

    def _fitted(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The picture as the encoder takes it; always one of our own, for others look at the original."""
        context, colors = self.context, self._colors()
        size = (context.width, context.height)
        if frame.format.name == self.pix_fmt and (frame.width, frame.height) == size:
            return duplicate(frame)
        return convert(frame, self.pix_fmt, size, space=colors.space, full=colors.range == 2 or None)

    def _colors(self) -> Any:
        info = cast(Any, self._streams)  # it has the `color` that is read
        return output_colors(info, self._streams.pix_fmt, self.context.name, self.pix_fmt)

    def _rate(self) -> Fraction:
        rate = self._streams.rate or _USUAL_RATE
        return rate if rate.numerator <= 1 << 20 else rate.limit_denominator(1001)

    def _choose_pix_fmt(self, name: str) -> str:
        formats = [each.name for each in (self.context.codec.video_formats or ())]
        wanted = self._streams.pix_fmt
        if _EVERYWHERE in formats and name not in ("ffv1", "rawvideo"):
            return _EVERYWHERE  # other subsamplings and depths are unknown to most players of live streams
        if not formats or wanted in formats:
            return wanted
        best, _ = find_best_pix_fmt_of_list(formats, wanted, has_alpha=True)
        return best.name if best is not None else wanted

    def _configure(self, name: str, options: EncoderOptions) -> None:
        streams, context = self._streams, self.context
        settings = {**RECIPES.get(name, Recipe()).fixed, **_LOW_DELAY.get(name, {})}
        if options.crf is not None:
            settings["crf"] = f"{options.crf:g}"
        if options.preset is not None:
            settings["preset"] = options.preset
        settings |= dict(item.split("=", 1) for item in options.encoder_options)
        halves = self.pix_fmt in (_EVERYWHERE, "yuvj420p", "nv12")
        context.width = streams.width & ~1 if halves else streams.width
        context.height = streams.height & ~1 if halves else streams.height
        if (context.width, context.height) != (streams.width, streams.height):
            self.notes.append(
                f"pictures of {streams.width}x{streams.height} are scaled to {context.width}x{context.height}: "
                f"{self.pix_fmt} has no odd sizes"
            )
        context.pix_fmt = self.pix_fmt
        context.time_base = TIME_BASE
        context.sample_aspect_ratio = streams.sample_aspect_ratio
        context.max_b_frames = 0
        # Keys are asked for by time; the encoder's own count of pictures is only a net under that.
        context.gop_size = max(1, round(10 * self._rate() * self._keyframes * TIME_BASE))
        context.flags |= Flags.global_header | Flags.low_delay
        color = self._colors()
        context.color_primaries, context.color_trc = color.primaries, color.trc
        context.colorspace, context.color_range = color.space, color.range
        context.options = settings
