"""Make the sample clips of this folder, or their clean originals.

    python samples/make.py --out samples          # old_film.mp4, surveillance.mp4, portrait.jpg
    python samples/make.py --clean /tmp/clean     # the same pictures before they were spoilt: old_film.mp4,
                                                  # surveillance.mp4 (lossless H.264, same pts), portrait.png

Needs gpenvid's own dependencies and `pip install scikit-image matplotlib pooch`, which carry the two portraits.
Everything is seeded: the pictures come out the same, though x264 does not always put the film's into the same bits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from scenes import Film, Lobby, cloud, portrait_still, smoothstep

RATE = 44100  # audio samples a second
Sound = tuple[str, np.ndarray]  # codec, samples


def spoil_film(picture: np.ndarray, k: int) -> np.ndarray:
    """Give a gray picture (H, W, 3) uint8 softness, flicker, grain, dust and scratches; k seeds them."""
    rng = np.random.default_rng((1895, k))
    height, width = picture.shape[:2]
    gray = cv2.GaussianBlur(picture[..., 0].astype(np.float32), (0, 0), 1.25 + 0.2 * np.sin(k / 5))
    gray *= 1 + 0.035 * np.sin(k * 2.3) + 0.02 * rng.normal()
    gray += 4 * cloud((height, width), 120, 1000 + k)  # uneven development
    grain = cv2.GaussianBlur(rng.normal(size=gray.shape).astype(np.float32), (0, 0), 0.75)
    gray += 8.0 * grain / grain.std() * (0.55 + 0.45 * np.sin(np.pi * np.clip(gray, 0, 255) / 255))
    dirt = np.zeros_like(gray)
    for _ in range(rng.poisson(5)):  # specks, dark on the positive or white from the negative
        centre, radius = rng.uniform((0, 0), (width, height)), rng.uniform(0.6, 2.6)
        angles = np.linspace(0, 2 * np.pi, 9)[:-1]
        shape = centre + radius * rng.uniform(0.5, 1.5, (8, 1)) * np.column_stack((np.cos(angles), np.sin(angles)))
        cv2.fillPoly(dirt, [np.rint(shape * 16).astype(np.int32)], float(rng.choice((-120, 110))), cv2.LINE_8, 4)
    if rng.random() < 0.14:  # a hair
        bend = rng.uniform((0, 0), (width, height)) + np.cumsum(rng.normal(0, 5, (9, 2)) + rng.normal(0, 4, 2), axis=0)
        cv2.polylines(dirt, [np.rint(bend * 16).astype(np.int32)], False, -95.0, 1, cv2.LINE_8, 4)
    for first, last, x, strength in ((8, 27, 96.0, 34), (22, 61, 391.0, 26), (40, 52, 205.0, 22)):  # scratches
        if first <= k < last:
            column = x + 2.2 * np.sin(k / 3 + x) + rng.normal(0, 0.4)
            profile = np.exp(-(((np.arange(width) - column) / 0.7) ** 2))
            dirt += strength * profile * np.clip(0.75 + 0.4 * cloud((height, 1), 30, k + int(x)), 0, 1)
    gray += cv2.GaussianBlur(dirt, (0, 0), 0.6)
    return np.repeat(np.rint(np.clip(gray, 0, 255)).astype(np.uint8)[..., None], 3, axis=2)


def spoil_cctv(picture: np.ndarray, k: int) -> np.ndarray:
    """Give a picture (H, W, 3) uint8 a cheap lens, a noisy sensor in low light and its camera's sharpening."""
    rng = np.random.default_rng((1963, k))
    image = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.9)
    photons = np.sqrt(0.35 * np.clip(image, 0, 255) + 14)
    image += photons * rng.normal(size=image.shape) * 0.8
    image += 0.8 * np.random.default_rng(5).normal(size=(1, image.shape[1], 1))  # columns: the same in every picture
    blotches = rng.normal(size=(image.shape[0] // 6, image.shape[1] // 6, 3)).astype(np.float32)
    image += 5 * cv2.resize(blotches, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    image += 0.5 * (image - cv2.GaussianBlur(image, (0, 0), 1.6))
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)


def spoil_still(picture: np.ndarray) -> np.ndarray:
    """Give a picture (H, W, 3) uint8 blur, a lower resolution and noise."""
    rng = np.random.default_rng(1999)
    height, width = picture.shape[:2]
    image = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 1.1)
    image = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    image += cv2.GaussianBlur(rng.normal(size=image.shape), (0, 0), 0.6) * 16
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)


def film_sound(seconds: float) -> np.ndarray:
    """Return a small waltz on a tired piano, with hiss and crackle: mono, float, -1 to 1."""
    rng = np.random.default_rng(3)
    sound = np.zeros(int(seconds * RATE))
    melody = "E5 1 G5 .5 E5 .5 D5 1 C5 1 D5 .5 E5 .5 A4 1 D5 1 F5 .5 D5 .5 B4 1 C5 3"
    bass = "C3 1 G3 1 C4 1 F3 1 A3 1 C4 1 G3 1 B3 1 D4 1 C3 3"
    for voice, loud in ((melody, 0.3), (bass, 0.17)):
        words, beat = voice.split(), 0.0
        for name, length in zip(words[::2], words[1::2], strict=True):
            pitch = 440 * 2 ** ((dict(zip("CDEFGAB", (0, 2, 4, 5, 7, 9, 11), strict=True))[name[0]] - 9) / 12)
            pitch *= 2.0 ** (int(name[1]) - 4)
            start = int((0.1 + beat * 0.42) * RATE)
            t = np.arange(max(0, min(len(sound) - start, 2 * RATE))) / RATE
            wow = pitch * (t + 0.0004 * np.sin(2 * np.pi * 1.3 * (t + beat)))
            tone = sum(
                np.sin(2 * np.pi * n * 1.0006**n * wow) * np.exp(-t * (1.6 + 0.9 * n)) / n**1.4 for n in range(1, 7)
            )
            sound[start : start + len(t)] += loud * tone * smoothstep(t, 0, 0.006)
            beat += float(length)
    clicks = (rng.random(len(sound)) < 18 / RATE) * rng.normal(0, 0.5, len(sound))
    sound += np.convolve(clicks, np.exp(-np.arange(60) / 9) * np.cos(np.arange(60) / 2), "same")
    return 0.7 * band(sound + 0.012 * rng.normal(size=len(sound)), 160, 4200)


def lobby_sound(seconds: float) -> np.ndarray:
    """Return the hum of the lamps, the air, and steps that come nearer: mono, float, -1 to 1."""
    rng = np.random.default_rng(4)
    t = np.arange(int(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * hertz * t) * gain for hertz, gain in ((50, 0.02), (100, 0.035), (300, 0.008)))
    sound = sound + 0.5 * band(0.04 * rng.normal(size=len(t)), 60, 900)
    for i, at in enumerate(np.arange(0.15, seconds - 0.3, 1 / 1.7)):
        since = np.clip(t - at, 0, None)
        thud = np.exp(-since * 38) * smoothstep(since, 0, 0.002)
        step = thud * (np.sin(2 * np.pi * (92 + 7 * (i % 2)) * since) + 0.8 * band(rng.normal(size=len(t)), 300, 2600))
        sound += step * (0.12 + 0.05 * at)
    return 0.8 * sound


def band(sound: np.ndarray, low: float, high: float) -> np.ndarray:
    """Keep the frequencies between low and high (Hz)."""
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    return np.fft.irfft(spectrum * smoothstep(hertz, low / 1.5, low) * smoothstep(hertz, high * 1.5, high), len(sound))


def write_clip(
    path: Path, shown: Iterable[np.ndarray], scene: Film | Lobby, options: dict[str, str], sound: Sound | None
) -> None:
    """Write an mp4 of RGB pictures at the scene's times, with x264's options, and a sound if there is one."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=scene.rate, options=options)
        video.width, video.height = scene.size
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = video.time_base = scene.tick
        video.codec_context.thread_count = 1
        for name in ("color_primaries", "color_trc", "colorspace"):
            setattr(video.codec_context, name, 6)  # SMPTE 170M, as swscale converts
        video.codec_context.color_range = 1
        voice = container.add_stream(sound[0], rate=RATE, layout="mono") if sound else None
        if voice is not None:
            voice.bit_rate = 64000
        for picture, time in zip(shown, scene.times, strict=False):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG"
            )
            frame.pts, frame.time_base = int(time / scene.tick), scene.tick
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if voice is not None and sound is not None:
            samples = np.clip(sound[1], -1, 1).astype(np.float32)[None]
            block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE, 0, Fraction(1, RATE)
            resampler = av.AudioResampler(format=voice.format, layout="mono", rate=RATE, frame_size=voice.frame_size)
            for piece in [*resampler.resample(block), *resampler.resample(None)]:
                container.mux(voice.encode(piece))
            container.mux(voice.encode())


def pictures(scene: Film | Lobby, spoil: Callable[[np.ndarray, int], np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Yield the scene's first `count` pictures, spoilt, with what the recorder writes over them."""
    for k in range(count):
        picture = spoil(scene.picture(k), k)
        scene.overlay(picture, k)
        yield picture


def make_degraded(folder: Path) -> None:
    """Write the samples as they are shipped."""
    film, lobby = Film(), Lobby()
    spoilt = pictures(film, spoil_film, len(film.times))
    quality = {"crf": "28", "preset": "slow", "tune": "grain", "profile": "high"}
    sound = ("libmp3lame", film_sound(float(film.times[-1]) + 1 / 16))
    write_clip(folder / "old_film.mp4", spoilt, film, quality, sound)
    spoilt = pictures(lobby, spoil_cctv, len(lobby.times))
    quality = {"crf": "30", "preset": "veryfast", "profile": "high", "g": "36", "bf": "0"}
    quality["x264-params"] = "no-deblock=1:aq-mode=0:no-psy=1"  # an encoder that saves where it shouldn't
    sound = ("aac", lobby_sound(float(lobby.times[-1]) + 1 / 12))
    write_clip(folder / "surveillance.mp4", spoilt, lobby, quality, sound)
    still = spoil_still(portrait_still())
    cv2.imwrite(str(folder / "portrait.jpg"), still[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 42])


def make_clean(folder: Path, count: int | None = None) -> None:
    """Write the clean originals without loss; only the first `count` pictures of each clip if told."""
    for name, scene in (("old_film.mp4", Film()), ("surveillance.mp4", Lobby())):
        clean = pictures(scene, lambda picture, k: picture, len(scene.times[:count]))
        write_clip(folder / name, clean, scene, {"qp": "0", "preset": "medium", "bf": "0"}, None)
    cv2.imwrite(str(folder / "portrait.png"), portrait_still()[..., ::-1])


def main() -> None:
    """Read the command line and write what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the degraded samples here")
    parser.add_argument("--clean", type=Path, metavar="DIR", help="write the clean originals here")
    parser.add_argument("--pictures", type=int, metavar="N", help="only the first N pictures of the clean clips")
    arguments = parser.parse_args()
    if arguments.out is None and arguments.clean is None:
        parser.error("nothing to do: give --out DIR, --clean DIR or both")
    if arguments.pictures is not None and arguments.pictures < 2:
        parser.error(f"--pictures {arguments.pictures}: must be 2 or more")
    if arguments.clean and arguments.out and arguments.clean.resolve() == arguments.out.resolve():
        parser.error(f"--clean {arguments.clean}: must be another folder than --out")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        make_degraded(arguments.out)
        print(f"wrote old_film.mp4, surveillance.mp4 and portrait.jpg to {arguments.out}")
    if arguments.clean:
        arguments.clean.mkdir(parents=True, exist_ok=True)
        make_clean(arguments.clean, arguments.pictures)
        print(f"wrote the clean old_film.mp4, surveillance.mp4 and portrait.png to {arguments.clean}")


if __name__ == "__main__":
    main()
