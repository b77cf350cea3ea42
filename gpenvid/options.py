"""What can be chosen: one frozen, validated dataclass per stage. The command line is generated from these fields.

A field made with `option` carries its help text and flags as metadata; the flag's name is the field's name with
dashes unless `flags` says otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from gpenvid.errors import OptionsError


def option(
    default: Any, help: str, *, flags: tuple[str, ...] = (), choices: tuple[str, ...] = (), metavar: str | None = None
) -> Any:
    """Declare a dataclass field that is also a command line option.

    `flags` replaces the derived `--field-name`; `choices` lists the accepted words, if only some are.
    """
    return field(default=default, metadata={"help": help, "flags": flags, "choices": choices, "metavar": metavar})


def require(condition: bool, name: str, value: object, rule: str) -> None:
    """Raises OptionsError for the option of this field unless `condition` holds; `rule`: the same in words."""
    if not condition:
        raise OptionsError(f"--{name.replace('_', '-')} {value}: must be {rule}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReaderOptions:
    """What part of the input is read, and by what it is decoded."""

    start: float | None = option(None, "skip what lies before this time (seconds or [HH:]MM:SS[.mmm])", metavar="TIME")
    end: float | None = option(None, "stop at this time (seconds or [HH:]MM:SS[.mmm])", metavar="TIME")
    hwaccel: str = option(
        "none",
        "decode on a graphics card: auto takes one that is there, if any",
        choices=("none", "auto", "cuda", "qsv", "vaapi", "videotoolbox", "d3d11va"),
    )

    def __post_init__(self) -> None:
        """Refuse nonsense with an OptionsError."""
        require(self.start is None or self.start >= 0, "start", self.start, "0 or more seconds")
        require(self.end is None or self.end > (self.start or 0), "end", self.end, "later than --start")


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorOptions:
    """How faces are found."""

    detector_model: str = option(
        "auto",
        "face detector: auto, a name from `gpenvid weights list`, or a file",
        flags=("--detector",),
        metavar="NAME",
    )
    threshold: float = option(0.3, "least score of a detection, 0 to 1; weak ones only continue a track")
    detect_size: int = option(640, "longer side in pixels of the copy in which faces are searched; 0 for full size")
    second_look: bool = option(
        True, "look at each face that was found once more, close and upright: truer places, fewer false faces"
    )
    max_faces: int = option(0, "restore at most this many faces a picture, largest first; 0 for all")

    def __post_init__(self) -> None:
        """Refuse nonsense with an OptionsError."""
        require(0 < self.threshold < 1, "threshold", self.threshold, "between 0 and 1")
        require(self.detect_size == 0 or self.detect_size >= 64, "detect_size", self.detect_size, "0 or at least 64")
        require(self.max_faces >= 0, "max_faces", self.max_faces, "0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerOptions:
    """How faces are followed over time. All durations are seconds."""

    lag: float = option(0.4, "seconds of look-ahead for smoothing; 0 is causal")
    confident: float = option(0.7, "least score of a detection that starts a track; weaker ones only continue it")
    confirm: float = option(0.1, "seconds for which a face must be seen before it counts as one")
    fade: float = option(0.2, "seconds over which the restoration of a face fades in and out")
    detect_every: int = option(
        1, "search every Nth picture, and the first of each scene; faces are followed through those between"
    )
    memory: float = option(2.0, "seconds after which a lost face is forgotten")
    stability: float = option(25.0, "how strongly flicker of the restoration is damped, 0 to 100")
    faces: str = option("all", "which faces to restore: all, largest, center, or track numbers such as 1,4")
    max_face: float = option(0.0, "leave faces larger than this many pixels alone; 0 for no limit")
    max_turn: float = option(80.0, "leave faces turned aside by more than this many degrees alone")

    def __post_init__(self) -> None:
        """Refuse nonsense with an OptionsError."""
        require(0 <= self.lag <= 5, "lag", self.lag, "0 to 5 seconds")
        require(0 < self.confident < 1, "confident", self.confident, "between 0 and 1")
        require(0 <= self.confirm <= 2, "confirm", self.confirm, "0 to 2 seconds")
        require(0 <= self.fade <= 2, "fade", self.fade, "0 to 2 seconds")
        require(1 <= self.detect_every <= 100, "detect_every", self.detect_every, "1 to 100 pictures")
        require(0 <= self.memory <= 60, "memory", self.memory, "0 to 60 seconds")
        require(0 <= self.stability <= 100, "stability", self.stability, "0 to 100")
        numbers = all(word.strip().isdigit() for word in self.faces.split(","))
        require(
            self.faces in ("all", "largest", "center") or numbers,
            "faces",
            self.faces,
            "all, largest, center or track numbers",
        )
        require(self.max_face >= 0, "max_face", self.max_face, "0 or more")
        require(0 < self.max_turn <= 180, "max_turn", self.max_turn, "1 to 180 degrees")


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsOptions:
    """Where weights come from."""

    weights_dir: str | None = option(None, "folder that is searched first and downloaded into", metavar="DIR")
    offline: bool = option(False, "never download; $GPENVID_OFFLINE does the same")


@dataclass(frozen=True, kw_only=True, slots=True)
class RestorerOptions:
    """Which network restores the faces, and on what."""

    model: str = option(
        "auto", "restorer: auto, a name from `gpenvid weights list`, or a file", flags=("-m", "--model"), metavar="NAME"
    )
    device: str = option(
        "auto", "auto, cpu, cuda, cuda:N or mps; several, as cuda:0,cuda:1, share each batch of faces out among them"
    )
    precision: str = option("auto", "arithmetic of the restorer", choices=("auto", "fp32", "fp16", "bf16"))
    batch: int = option(0, "most faces restored at once; 0 for what suits the device")
    backend: str = option("torch", "what runs the restorer; onnx is ONNX Runtime", choices=("torch", "onnx"))
    provider: str = option("auto", "ONNX Runtime's provider: auto, cpu, cuda, tensorrt, openvino, coreml, directml")
    compile: bool = option(False, "translate the restorer with torch.compile: minutes at first, then faster")

    def __post_init__(self) -> None:
        """Refuse nonsense with an OptionsError."""
        require(
            re.fullmatch(r"auto|{0}(,{0})*".format(r"(cpu|mps|cuda(:\d+)?)"), self.device) is not None,
            "device",
            self.device,
            "auto, cpu, cuda, cuda:N or mps, or several of them with commas between",
        )
        require(
            self.precision in ("auto", "fp32", "fp16", "bf16"), "precision", self.precision, "auto, fp32, fp16 or bf16"
        )
        require(self.batch >= 0, "batch", self.batch, "0 or more")
        require(self.backend in ("torch", "onnx"), "backend", self.backend, "torch or onnx")
        words = ("auto", "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml")
        require(self.provider in words, "provider", self.provider, ", ".join(words))

    @property
    def first_device(self) -> str:
        """The device of all other networks."""
        return self.device.split(",")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class PasteOptions:
    """How a restored face is put back."""

    blend: float = option(100.0, "share of the restored face in percent, 0 to 100", flags=("--blend", "--alpha"))
    min_face: float = option(16.0, "leave faces smaller than this many pixels alone")
    mask: str = option(
        "soft",
        "what is pasted: the middle of the crop with a soft edge, or what facexlib's ParseNet takes for face",
        choices=("soft", "parsed"),
    )
    paste_on: str = option(
        "auto",
        "where faces are cut out and pasted: on the cpu, or on the restorer's device; auto is the latter for CUDA",
        choices=("auto", "cpu", "device"),
    )

    def __post_init__(self) -> None:
        """Refuse nonsense with an OptionsError."""
        require(0 <= self.blend <= 100, "blend", self.blend, "0 to 100")
        require(self.min_face >= 0, "min_face", self.min_face, "0 or more")
        require(self.mask in ("soft", "parsed"), "mask", self.mask, "soft or parsed")
        require(self.paste_on in ("auto", "cpu", "device"), "paste_on", self.paste_on, "auto, cpu or device")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderOptions:
    """How pictures are encoded."""

    codec: str = option(
        "auto",
        "video encoder, for example libx264, libx265, ffv1; auto keeps the input's where it can",
        flags=("-c", "--codec"),
    )
    crf: float | None = option(None, "constant quality of the encoder (lower is better); default by codec")
    preset: str | None = option(None, "speed preset of the encoder, for example medium")
    encoder_options: tuple[str, ...] = option(
        (), "any other encoder option; may be repeated", flags=("-e", "--encoder-option"), metavar="KEY=VALUE"
    )

    def __post_init__(self) -> None:
        """Refuse nonsense with an OptionsError."""
        require(self.crf is None or 0 <= self.crf <= 63, "crf", self.crf, "0 to 63")
        for item in self.encoder_options:
            require("=" in item, "encoder_option", item, "KEY=VALUE")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """How a live source is reached. All times are seconds."""

    rtsp_transport: str = option(
        "tcp", "how RTSP carries the packets", choices=("tcp", "udp", "udp_multicast", "http", "https")
    )
    listen: bool = option(False, "wait at this address for a source that pushes (RTSP, RTMP, HTTP)")
    size: str | None = option(None, "size of a webcam's picture or of the screen that is grabbed", metavar="WxH")
    rate: float | None = option(None, "pictures a second of a webcam or screen")
    camera_format: str | None = option(None, "what a webcam is to send, for example mjpeg or yuyv422", metavar="FORMAT")
    stall: float = option(2.5, "seconds of silence after which the source counts as lost")
    connect_timeout: float = option(10.0, "seconds that a connection may take")
    source_options: tuple[str, ...] = option(
        (), "any FFmpeg option for opening the source; may be repeated", flags=("--source-option",), metavar="KEY=VALUE"
    )

    def __post_init__(self) -> None:
        """Refuse nonsense with an OptionsError."""
        require(
            self.rtsp_transport in ("tcp", "udp", "udp_multicast", "http", "https"),
            "rtsp_transport",
            self.rtsp_transport,
            "tcp, udp, udp_multicast, http or https",
        )
        require(
            self.size is None or re.fullmatch(r"[1-9]\d*x[1-9]\d*", self.size) is not None,
            "size",
            self.size,
            "WxH, for example 1280x720",
        )
        require(self.rate is None or 0 < self.rate <= 1000, "rate", self.rate, "above 0")
        require(0.2 <= self.stall <= 3600, "stall", self.stall, "0.2 to 3600 seconds")
        require(0.2 <= self.connect_timeout <= 3600, "connect_timeout", self.connect_timeout, "0.2 to 3600 seconds")
        for item in self.source_options:
            require("=" in item, "source_option", item, "KEY=VALUE")


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveOptions:
    """What happens when pictures come faster than they can be restored, or don't come. All times are seconds."""

    late: str = option(
        "auto",
        "what becomes of a picture that a fresher one overtook: passed through unrestored, dropped, or nothing is ever"
        " late and the source waits; auto waits for pipes and files and passes for all others",
        choices=("auto", "pass", "drop", "wait"),
    )
    max_latency: float = option(0.0, "a picture that would come out later than this is late too; 0 for no limit")
    degrade: bool = option(True, "do less when time is short: detect less often, restore fewer faces, pass through")
    on_loss: str = option(
        "hold",
        "while the source is away: hold the last picture, marked, with silence; or stop, with everything finished",
        choices=("hold", "stop"),
    )
    duration: float | None = option(None, "end after this time (seconds or [HH:]MM:SS)", metavar="TIME")

    def __post_init__(self) -> None:
        """Refuse nonsense with an OptionsError."""
        require(self.late in ("auto", "pass", "drop", "wait"), "late", self.late, "auto, pass, drop or wait")
        require(0 <= self.max_latency <= 60, "max_latency", self.max_latency, "0 to 60 seconds")
        require(self.on_loss in ("hold", "stop"), "on_loss", self.on_loss, "hold or stop")
        require(self.duration is None or self.duration > 0, "duration", self.duration, "above 0 seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class SinkOptions:
    """How live outputs are written."""

    format: str = option("mpegts", "what is written to standard output (-o -)", choices=("mpegts", "matroska", "y4m"))
    keyframes: float = option(2.0, "seconds between key pictures, at which players can join and files are cut")
    segment: float = option(60.0, "seconds that each file of rolling recordings lasts")
    keep_files: int = option(0, "keep at most this many recordings; 0 for all")
    keep_hours: float = option(0.0, "delete recordings older than this; 0 for never")
    keep_gigabytes: float = option(0.0, "keep recordings of at most this size in all; 0 for no limit")
    hls_segment: float = option(2.0, "seconds of a segment of HLS")
    hls_list: int = option(6, "segments in the playlist of HLS")
    publish_transport: str = option("tcp", "how RTSP outputs carry the packets", choices=("tcp", "udp"))

    def __post_init__(self) -> None:
        """Refuse nonsense with an OptionsError."""
        require(self.format in ("mpegts", "matroska", "y4m"), "format", self.format, "mpegts, matroska or y4m")
        require(0.1 <= self.keyframes <= 60, "keyframes", self.keyframes, "0.1 to 60 seconds")
        require(0.1 <= self.segment <= 86400, "segment", self.segment, "0.1 to 86400 seconds")
        require(self.keep_files >= 0, "keep_files", self.keep_files, "0 or more")
        require(self.keep_hours >= 0, "keep_hours", self.keep_hours, "0 or more")
        require(self.keep_gigabytes >= 0, "keep_gigabytes", self.keep_gigabytes, "0 or more")
        require(0.1 <= self.hls_segment <= 60, "hls_segment", self.hls_segment, "0.1 to 60 seconds")
        require(2 <= self.hls_list <= 1000, "hls_list", self.hls_list, "2 to 1000")
        require(self.publish_transport in ("tcp", "udp"), "publish_transport", self.publish_transport, "tcp or udp")


STAGES: dict[str, type] = {
    "reader": ReaderOptions,
    "detector": DetectorOptions,
    "tracker": TrackerOptions,
    "weights": WeightsOptions,
    "restorer": RestorerOptions,
    "paste": PasteOptions,
    "encoder": EncoderOptions,
}
"""The options classes in the order in which a picture passes the stages."""

LIVE_STAGES: dict[str, type] = {"source": SourceOptions, "live": LiveOptions, "sink": SinkOptions}
"""What a live session has besides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Every choice of one job, a dataclass per stage."""

    reader: ReaderOptions = field(default_factory=ReaderOptions)
    detector: DetectorOptions = field(default_factory=DetectorOptions)
    tracker: TrackerOptions = field(default_factory=TrackerOptions)
    weights: WeightsOptions = field(default_factory=WeightsOptions)
    restorer: RestorerOptions = field(default_factory=RestorerOptions)
    paste: PasteOptions = field(default_factory=PasteOptions)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)

    @classmethod
    def of(cls, **choices: Any) -> Options:
        """Sort keywords by stage: `Options.of(codec="libx265", lag=0)`. Raises OptionsError for an unknown name."""
        stages = {}
        for stage, options in STAGES.items():
            names = {each.name for each in fields(options)}
            stages[stage] = options(**{name: choices.pop(name) for name in names & choices.keys()})
        if choices:
            raise OptionsError(f"{', '.join(sorted(choices))}: no such option")
        return cls(**stages)
