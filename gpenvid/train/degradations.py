"""How good pictures of faces become bad ones, reproducibly.

Every operation is a function `op(rng, image, strength) -> image`: RGB uint8 in, RGB uint8 out, of the same size unless
its docstring says otherwise; all chance comes from `rng`, so one seed gives one picture. `strength` in [0, 1] sets the
range from which the operation's parameters are drawn; at 0 it does next to nothing. Lengths scale with the picture's
shorter side, so that a strength means the same at 128 and at 512 pixels.

The chains put operations together: `classic` as GPEN was trained (Yang et al. 2021), `second_order` shuffled and
applied twice as in BSRGAN (Zhang et al. 2021), `video` and `film` for what moving pictures suffer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gpenvid.train.codecs import CODECS, encode_decode
from gpenvid.types import Image

Op = Callable[[np.random.Generator, Image, float], Image]

STRENGTHS = {"mild": 0.2, "middle": 0.5, "strong": 0.8}
"""The three strengths at which restorers are judged."""

_INTERPOLATIONS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)


def _to_uint8(values: Any) -> Image:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


def _side(image: Image) -> int:
    return int(min(image.shape[:2]))


def blur(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """Gaussian defocus, isotropic or (half the time) anisotropic; sigma 0.1 to 6 px at 512 px and strength 1."""
    unit = _side(image) / 512
    sigma = rng.uniform(0.1, 1 + 5 * strength) * unit
    across = sigma * (rng.uniform(0.3, 1) if rng.random() < 0.5 else 1)
    return _filter(image, _gaussian_kernel(sigma, across, rng.uniform(0, np.pi)))


def _gaussian_kernel(sigma: float, across: float, angle: float) -> NDArray[np.float32]:
    """A normalised Gaussian with the given standard deviations along and across `angle`, cut at 3 sigma."""
    radius = max(1, int(np.ceil(3 * sigma)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    u = x * np.cos(angle) + y * np.sin(angle)
    v = -x * np.sin(angle) + y * np.cos(angle)
    kernel = np.exp(-0.5 * ((u / max(sigma, 0.05)) ** 2 + (v / max(across, 0.05)) ** 2))
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _filter(image: Image, kernel: NDArray[np.float32]) -> Image:
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101), dtype=np.uint8)


def motion_blur(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """The smear of a straight motion during the exposure, up to 6 % of the side long."""
    length = 1 + rng.uniform(0, 0.06 * strength) * _side(image)
    angle = rng.uniform(0, np.pi)
    radius = int(np.ceil(length / 2)) + 1
    offsets = np.linspace(-length / 2, length / 2, 4 * radius + 1)
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    for offset in offsets:
        x, y = radius + offset * np.cos(angle), radius + offset * np.sin(angle)
        x0, y0 = int(np.floor(x)), int(np.floor(y))
        for column, wx in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
            for row, wy in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
                if wx * wy > 0:
                    kernel[row, column] += wx * wy
    return _filter(image, kernel / kernel.sum())


def downsample(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """Shrink by 1.5 to 4 (at strength 1; 1 + s/2 to 1 + 3s); the result is smaller. `restore_size` brings it back."""
    factor = rng.uniform(1 + 0.5 * strength, 1 + 3 * strength)
    height, width = image.shape[:2]
    size = (max(8, round(width / factor)), max(8, round(height / factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def restore_size(rng: np.random.Generator, image: Image, size: tuple[int, int]) -> Image:
    """Enlarge to (height, width) as players and face croppers do: linear or cubic, by chance."""
    if image.shape[:2] == size:
        return image
    interpolation = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=interpolation), dtype=np.uint8)


def gaussian_noise(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """White noise of standard deviation 8 to 40 (at strength 1) of 255; per channel, or common to all three."""
    sigma = rng.uniform(8 * strength, 40 * strength)
    shape = image.shape if rng.random() < 0.6 else (*image.shape[:2], 1)
    return _to_uint8(image + rng.normal(0, sigma, shape) if sigma > 0 else image.astype(np.float32))


def sensor_noise(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """Low light: photon noise growing with the square root of the signal, read noise, and blotchy chroma noise.

    At strength 1 the gain is 1 to 4 levels per electron and the read noise 2 to 10 levels.
    """
    gain, read = rng.uniform(strength, 4 * strength), rng.uniform(2 * strength, 10 * strength)
    signal = image.astype(np.float32)
    sigma = np.sqrt(gain * signal + read**2)
    noise = rng.normal(0, 1, image.shape) * sigma
    blotch = rng.normal(0, 1, (max(2, image.shape[0] // 3), max(2, image.shape[1] // 3), 3)).astype(np.float32)
    chroma = cv2.resize(blotch, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR) * read
    return _to_uint8(signal + 0.7 * noise + chroma - chroma.mean(axis=2, keepdims=True))


def jpeg(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """JPEG of quality 95 down to 20 (at strength 1)."""
    quality = round(rng.uniform(95 - 75 * strength, 95))
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)[..., ::-1])


def _moving(rng: np.random.Generator, image: Image, count: int) -> list[Image]:
    """A short pan that ends on `image`, so that a codec has motion to predict."""
    velocity = rng.normal(0, 0.012 * _side(image), 2)
    pictures = []
    for step in range(count - 1, 0, -1):
        matrix = np.array([[1, 0, velocity[0] * step], [0, 1, velocity[1] * step]], np.float32)
        size = (image.shape[1], image.shape[0])
        moved = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT_101)
        pictures.append(np.asarray(moved, dtype=np.uint8))
    return [*pictures, image]


def _codec(name: str) -> Op:
    def op(rng: np.random.Generator, image: Image, strength: float) -> Image:
        low, high = CODECS[name].quality
        quality = rng.uniform(low, low + (high - low) * strength)
        return encode_decode(_moving(rng, image, int(rng.integers(1, 4))), name, quality)[-1]

    op.__name__ = name
    low, high = CODECS[name].quality
    op.__doc__ = (
        f"Encode a short pan with {name} at quantiser {low} to {high} (at strength 1); the last picture, decoded."
    )
    return op


h264, h265, mpeg2 = _codec("h264"), _codec("h265"), _codec("mpeg2")


def interlacing(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """Two fields of a moving picture woven together: every other row comes from up to 3 % of the side away."""
    shift = rng.uniform(-0.03, 0.03) * strength * _side(image)
    matrix = np.array([[1, 0, shift], [0, 1, 0]], np.float32)
    other = cv2.warpAffine(image, matrix, (image.shape[1], image.shape[0]), borderMode=cv2.BORDER_REFLECT_101)
    woven: Image = image.copy()
    parity = int(rng.integers(2))
    woven[parity::2] = other[parity::2]
    return woven


def film_grain(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """Luma grain of 1 to 2 pixels, strongest in the midtones; standard deviation 10 to 40 of 255 at strength 1."""
    white = rng.normal(0, 1, image.shape[:2]).astype(np.float32)
    grain = np.asarray(cv2.GaussianBlur(white, (0, 0), rng.uniform(0.3, 0.9)), dtype=np.float32)
    grain *= rng.uniform(10 * strength, 40 * strength) / max(float(grain.std()), 1e-6)
    luma = image.mean(axis=2) / 255
    return _to_uint8(image + (grain * (0.4 + 2.4 * luma * (1 - luma)))[..., None])


def scratches_and_dirt(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """Worn film: a few near vertical light or dark lines, and small specks."""
    height, width = image.shape[:2]
    cover = np.zeros((height, width), np.float32)
    for _ in range(int(rng.poisson(2 * strength))):
        x = rng.uniform(0, width)
        end = x + rng.normal(0, 0.02 * width)
        top, bottom = sorted(rng.uniform(-0.3, 1.3, 2) * height)
        cv2.line(cover, (round(x), round(top)), (round(end), round(bottom)), rng.uniform(0.3, 0.8), 1, cv2.LINE_AA)
    for _ in range(int(rng.poisson(5 * strength))):
        centre = tuple(int(v) for v in rng.uniform(0, 1, 2) * (width, height))
        axes = tuple(int(v) for v in rng.uniform(0, 0.015 * _side(image), 2))
        cv2.ellipse(cover, centre, axes, rng.uniform(0, 180), 0, 360, rng.uniform(0.4, 0.9), -1, cv2.LINE_AA)
    tone = 255.0 if rng.random() < 0.6 else 0.0
    return _to_uint8(image + cover[..., None] * (tone - image))


def chroma_subsampling(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """Colour at a half to a quarter of the resolution (video tape and composite signals are that poor)."""
    factor = rng.uniform(1, 2 + 4 * strength)
    ycc = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)
    height, width = image.shape[:2]
    small = cv2.resize(ycc[..., 1:], (max(1, round(width / factor)), max(1, round(height / factor))), interpolation=3)
    ycc[..., 1:] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.cvtColor(ycc, cv2.COLOR_YCrCb2RGB), dtype=np.uint8)


def gray(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """Black and white (ITU-R BT.601 luma in all three channels); no chance in it, and no strength."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def faded_colour(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """Aged dyes: less contrast and saturation, lifted blacks, a faint cast. At strength 1 up to 30 % is lost."""
    values = image.astype(np.float32)
    luma = values.mean(axis=2, keepdims=True)
    values = luma + (values - luma) * (1 - rng.uniform(0, 0.3 * strength))
    values = 128 + (values - 128) * (1 - rng.uniform(0, 0.3 * strength))
    return _to_uint8(values + rng.normal(0, 5 * strength, 3))


def over_sharpening(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """The unsharp mask of cheap cameras, with its halos: gain up to 2, radius up to 1 % of the side."""
    radius = max(0.5, rng.uniform(0.2, 1) * 0.01 * _side(image))
    soft = cv2.GaussianBlur(image, (0, 0), radius).astype(np.float32)
    return _to_uint8(image + rng.uniform(0, 2 * strength) * (image - soft))


OPS: dict[str, Op] = {
    "blur": blur,
    "motion_blur": motion_blur,
    "downsample": downsample,
    "gaussian_noise": gaussian_noise,
    "sensor_noise": sensor_noise,
    "jpeg": jpeg,
    "h264": h264,
    "h265": h265,
    "mpeg2": mpeg2,
    "interlacing": interlacing,
    "film_grain": film_grain,
    "scratches_and_dirt": scratches_and_dirt,
    "chroma_subsampling": chroma_subsampling,
    "gray": gray,
    "faded_colour": faded_colour,
    "over_sharpening": over_sharpening,
}


def _apply(rng: np.random.Generator, image: Image, strength: float, ops: list[tuple[Op, float]]) -> Image:
    """Each operation with its probability; then back to the size that went in."""
    size = (image.shape[0], image.shape[1])
    for op, probability in ops:
        if rng.random() < probability:
            image = op(rng, image, strength)
    return restore_size(rng, image, size)


def classic(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """GPEN's own chain: blur, downsample, noise, JPEG, back up."""
    return _apply(rng, image, strength, [(blur, 1), (downsample, 1), (gaussian_noise, 1), (jpeg, 1)])


def second_order(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """BSRGAN's: two blurs, two downsamplings, three noises in shuffled order, JPEG in between and at the end."""
    milder = strength * 0.4
    ops: list[Op] = [blur, blur, downsample, downsample, gaussian_noise, sensor_noise, jpeg]
    size = (image.shape[0], image.shape[1])
    for place in rng.permutation(len(ops)):
        image = ops[int(place)](rng, image, milder)
    return restore_size(rng, jpeg(rng, image, strength), size)


def video(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """A small face in a surveillance camera, a phone or a broadcast: optics, sensor, sharpening, then a codec."""
    codec = (h264, h264, h265, mpeg2)[int(rng.integers(4))]
    before: list[tuple[Op, float]] = [(blur, 0.5), (motion_blur, 0.3), (downsample, 0.9)]
    camera: list[tuple[Op, float]] = [(sensor_noise, 0.6), (over_sharpening, 0.25), (chroma_subsampling, 0.3)]
    return _apply(rng, image, strength, [*before, *camera, (interlacing, 0.1), (codec, 1)])


def film(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """An old reel, scanned: soft, grainy, worn, faded, then compressed."""
    aged: list[tuple[Op, float]] = [(blur, 1), (faded_colour, 0.3), (film_grain, 1), (scratches_and_dirt, 0.3)]
    codec = (jpeg, h264, mpeg2)[int(rng.integers(3))]
    return _apply(rng, image, strength, [(aged[0][0], 1), (downsample, 0.6), *aged[1:], (codec, 0.8)])


CHAINS: dict[str, Op] = {"classic": classic, "second_order": second_order, "video": video, "film": film}


def degrade(rng: np.random.Generator, image: Image, strength: float, chain: str | None = None) -> Image:
    """One picture made worse by `chain`, or by one of CHAINS drawn by chance. Same shape; contiguous.

    image: RGB uint8 (H, W, 3). strength in [0, 1]; 0 returns the picture unchanged.
    Raises KeyError for an unknown chain.
    """
    if strength <= 0:
        return np.array(image)
    names = list(CHAINS)
    name = chain or names[int(rng.integers(len(names)))]
    return np.ascontiguousarray(CHAINS[name](rng, image, strength), dtype=np.uint8)


LABEL = 160
"""Width in pixels of the names beside the rows of a preview."""


def preview(pictures: list[Image], *, seed: int = 0, side: int = 128) -> Image:
    """A contact sheet: a row per operation and chain, its name, a picture, and that picture at each of STRENGTHS.

    pictures: RGB uint8, of which each row takes the next. Returns ((ops + chains) * side, LABEL + 4 * side, 3).
    """
    rows = []
    for number, (name, op) in enumerate({**OPS, **CHAINS}.items()):
        image = cv2.resize(pictures[number % len(pictures)], (side, side), interpolation=cv2.INTER_AREA)
        label = np.full((side, LABEL, 3), 255, np.uint8)
        cv2.putText(label, name, (4, side // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        shown = [np.asarray(image, dtype=np.uint8)]
        for strength in STRENGTHS.values():
            result = op(np.random.default_rng((seed, number)), shown[0], strength)
            shown.append(np.asarray(cv2.resize(result, (side, side), interpolation=cv2.INTER_NEAREST), dtype=np.uint8))
        rows.append(np.hstack([label, *shown]))
    return np.vstack(rows)
