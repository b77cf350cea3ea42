"""Which encoder writes the pictures, and how it is set."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import cast

import av
from av.codec.codec import find_best_pix_fmt_of_list
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.stream import VideoStream

from gpenvid.errors import MediaError, OptionsError
from gpenvid.media.layouts import LAYOUTS
from gpenvid.media.probe import ColorTags, MediaInfo
from gpenvid.options import EncoderOptions


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one encoder is driven. quality: the option that holds constant quality, "qscale", or "" for none."""

    quality: str = ""
    default: float = 0
    fixed: dict[str, str] = field(default_factory=dict)
    finest_time: int = 0
    """The largest time base denominator that the bitstream can hold; 0 for any."""


RECIPES: dict[str, Recipe] = {
    "libx264": Recipe("crf", 17),
    "libx265": Recipe("crf", 19, {"x265-params": "log-level=error"}),
    "libvpx-vp9": Recipe("crf", 24, {"row-mt": "1", "cpu-used": "2"}),
    "libvpx": Recipe("crf", 6, {"b": "40M", "cpu-used": "2"}),
    "libsvtav1": Recipe("crf", 24),
    "libaom-av1": Recipe("crf", 22, {"cpu-used": "4"}),
    "mpeg4": Recipe("qscale", 2, {}, 65535),
    "mjpeg": Recipe("qscale", 2),
    "ffv1": Recipe("", 0, {"level": "3", "slicecrc": "1"}),
    "prores_ks": Recipe("", 0, {"vendor": "apl0"}),
}
"""Encoders with defaults of our own; any other works with its own defaults."""

KEPT: dict[str, tuple[str, ...]] = {
    "h264": ("libx264",),
    "hevc": ("libx265",),
    "vp8": ("libvpx",),
    "vp9": ("libvpx-vp9",),
    "av1": ("libsvtav1", "libaom-av1"),
    "ffv1": ("ffv1",),
    "prores": ("prores_ks",),
    "mpeg4": ("mpeg4",),
    "mjpeg": ("mjpeg",),
    "ffvhuff": ("ffvhuff",),
    "huffyuv": ("huffyuv",),
    "utvideo": ("utvideo",),
    "rawvideo": ("rawvideo",),
    "png": ("png",),
}
"""Input codec to the encoders that keep it. A codec that is not here is replaced by a fallback."""

_FALLBACKS = ("libx264", "libvpx-vp9", "mpeg4")
_PRORES_PROFILES = {
    "Proxy": "proxy",
    "LT": "lt",
    "Standard": "standard",
    "HQ": "hq",
    "4444": "4444",
    "4444XQ": "4444xq",
}
_WHOLE_CHROMA_ONLY = {"libx264", "libx265", "utvideo", "ffvhuff", "huffyuv"}
_INTERLACING = {"libx264", "mpeg4", "mpeg2video", "prores_ks", "ffv1", "rawvideo", "dvvideo"}
_QP_TO_LAMBDA = 118
_NO_MATRIX = 0
_BT709 = 1
_LIMITED = 1
_FULL = 2


def choose_encoder(info: MediaInfo, container: OutputContainer, options: EncoderOptions, notes: list[str]) -> str:
    """The encoder's name: the one asked for, or one that keeps the input's codec, or a fallback (noted).

    Raises OptionsError for an unknown encoder, MediaError for one whose codec the container can't hold.
    """
    possible = container.supported_codecs
    asked = options.codec
    if asked != "auto":
        # "h264" and the like name a codec: take the encoder that we know for it.
        name = next((n for n in KEPT.get(asked, ()) if _encoder(n) is not None), asked)
        if _encoder(name) is None:
            raise OptionsError(f"--codec {asked}: is no video encoder of this FFmpeg")
        if name not in possible:
            raise MediaError(f"--codec {asked}: can't be stored in {container.format.name}; choose another extension")
        return name
    for name in KEPT.get(info.codec, ()):
        recipe = RECIPES.get(name, Recipe())
        fits_time = not recipe.finest_time or info.time_base.denominator <= recipe.finest_time
        if name in possible and fits_time and _encoder(name) is not None:
            return name
    for name in _FALLBACKS:
        if name in possible and _encoder(name) is not None:
            notes.append(f"video {info.codec} can't be kept in {container.format.name}: encoded with {name}")
            return name
    raise MediaError(f"{container.format.name} holds no video codec that can be written")


def choose_pix_fmt(name: str, info: MediaInfo, wanted: str, notes: list[str]) -> str:
    """The encoder's pixel format: the pictures' own, or the nearest (noted)."""
    encoder = _encoder(name)
    formats = [pixel_format.name for pixel_format in (encoder.video_formats or ())] if encoder is not None else []
    odd = name in _WHOLE_CHROMA_ONLY and not _whole_chroma(wanted, info)
    if odd:
        formats = [pix_fmt for pix_fmt in formats if _whole_chroma(pix_fmt, info)]
    if not formats or wanted in formats:
        return wanted
    if (renamed := same_samples(wanted)) in formats:
        return renamed
    best, _ = find_best_pix_fmt_of_list(formats, wanted, has_alpha=True)
    if best is None:
        raise MediaError(f"--codec {name}: can't encode {wanted} pictures")
    size = f" of {info.width}x{info.height}" if odd else ""
    notes.append(f"{name} can't encode {wanted}{size}: pictures are converted to {best.name}")
    return best.name


def _whole_chroma(pix_fmt: str, info: MediaInfo) -> bool:
    """Whether the picture's size is a multiple of the format's chroma subsampling."""
    layout = LAYOUTS.get(pix_fmt)
    return layout is None or not (info.width % (1 << layout.log2_x) or info.height % (1 << layout.log2_y))


def same_samples(name: str) -> str:
    """The other name of a format with the very same samples: yuvj420p is yuv420p tagged as full range."""
    if name.startswith("yuvj"):
        return "yuv" + name[4:]
    return "yuvj" + name[3:] if name.startswith("yuv4") else name


def add_encoder(
    container: OutputContainer, info: MediaInfo, wanted: str, options: EncoderOptions, notes: list[str]
) -> VideoStream:
    """Add the video stream and open its encoder, so that everything it would refuse is refused before any work.

    wanted: the pixel format of the pictures that will come.
    Raises OptionsError for encoder options that it doesn't know or refuses, MediaError if it can't be opened.
    """
    name = choose_encoder(info, container, options, notes)
    pix_fmt = choose_pix_fmt(name, info, wanted, notes)
    recipe = RECIPES.get(name, Recipe())
    if info.hdr is not None and name not in ("libx264", "libx265"):
        notes.append(f"HDR10 mastering metadata can't be kept by {name}")
    if info.interlaced and name not in _INTERLACING:
        notes.append(f"{name} doesn't know interlaced pictures: they are encoded as progressive ones")
    settings = _settings(name, recipe, info, pix_fmt, options)
    if recipe.finest_time and info.time_base.denominator > recipe.finest_time:
        raise MediaError(f"--codec {name}: can't hold times of {info.time_base} s exactly; use libx264 instead")
    stream = cast(VideoStream, container.add_stream(name, rate=_rate(info)))
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = info.width, info.height, pix_fmt
    context.time_base = stream.time_base = info.time_base
    context.sample_aspect_ratio = info.sample_aspect_ratio
    if name == "libx264":
        context.thread_type = "AUTO"  # PyAV's default, threads within a picture, makes x264 cut it into slices
    context.flags |= Flags.frame_duration
    if recipe.quality == "qscale":
        context.qscale = True
        quality = recipe.default if options.crf is None else options.crf
        settings["global_quality"] = str(round(quality * _QP_TO_LAMBDA))
    _tag(stream, info, pix_fmt, settings, notes)
    context.options = settings
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        asked = " ".join(f"{key}={value}" for key, value in settings.items())
        raise OptionsError(
            f"--codec {name}: the encoder refuses {info.width}x{info.height} {pix_fmt} {asked}"
        ) from error
    if context.options:
        flags = (
            f"--{key}" if key in ("crf", "preset") else f"--encoder-option {key}" for key in sorted(context.options)
        )
        raise OptionsError(f"{', '.join(flags)}: {name} has no such option")
    return stream


def output_colors(info: MediaInfo, wanted: str, name: str, pix_fmt: str) -> ColorTags:
    """The tags of what is written: the input's, but for two cases.

    RGB that had to become YCbCr is BT.709 in limited range; JPEG (encoder `mjpeg`) is always full range.
    """
    color = info.color
    if name == "mjpeg" and not av.VideoFormat(wanted).is_rgb:
        return replace(color, range=_FULL)
    if av.VideoFormat(wanted).is_rgb and not av.VideoFormat(pix_fmt).is_rgb:
        return ColorTags(color.primaries, color.trc, _BT709, _LIMITED, "left")
    return color


def _encoder(name: str) -> av.Codec | None:
    try:
        codec = av.Codec(name, "w")
    except (ValueError, av.error.FFmpegError):
        return None
    return codec if codec.type == "video" else None


def _settings(name: str, recipe: Recipe, info: MediaInfo, pix_fmt: str, options: EncoderOptions) -> dict[str, str]:
    settings = dict(recipe.fixed)
    if recipe.quality == "crf":
        settings["crf"] = f"{recipe.default if options.crf is None else options.crf:g}"
    elif options.crf is not None and recipe.quality == "":
        settings["crf"] = f"{options.crf:g}"
    if name == "prores_ks":
        settings["profile"] = "4444" if "444" in pix_fmt else _PRORES_PROFILES.get(info.profile, "hq")
    if options.preset is not None:
        settings["preset"] = options.preset
    for item in options.encoder_options:
        key, _, value = item.partition("=")
        settings[key] = value
    if info.hdr is not None and name in ("libx264", "libx265"):
        key = name.removeprefix("lib") + "-params"
        settings[key] = ":".join([*info.hdr.parameters(name), *filter(None, [settings.get(key)])])
    return settings


def _tag(stream: VideoStream, info: MediaInfo, pix_fmt: str, settings: dict[str, str], notes: list[str]) -> None:
    """Colour, rotation and interlacing, as they were."""
    context = stream.codec_context
    color = output_colors(info, info.pix_fmt, context.name, pix_fmt)
    context.color_primaries, context.color_trc = color.primaries, color.trc
    context.colorspace = color.space
    context.color_range = _FULL if pix_fmt.startswith("yuvj") or context.name == "mjpeg" else color.range
    if color.chroma_location:
        settings.setdefault("chroma_sample_location", color.chroma_location)
    if info.display_matrix is not None:
        if hasattr(stream, "set_display_matrix"):
            stream.set_display_matrix(info.display_matrix)
        else:
            notes.append(f"rotation can't be written by PyAV {av.__version__}: install 18 or later")
    if info.interlaced:
        context.flags |= Flags.interlaced_dct | Flags.interlaced_me


def _rate(info: MediaInfo) -> Fraction:
    """The average rate; only rate control reads it, times come from the pictures."""
    rate = info.average_rate or Fraction(25)
    return rate.limit_denominator(1001) if rate.numerator > 1 << 20 else rate
