"""How near restored pictures are to the truth, and how much nearer than before: figures, a table, a contact sheet.

Pictures come in pairs from two folders (matched by their names without suffix), two picture files, or two videos
(matched in order). A third source, the degraded pictures, shows what the restoration was worth.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from gpenvid.errors import MediaError, OptionsError
from gpenvid.metrics import gmsd, gradient_energy_ratio, psnr, ssim
from gpenvid.options import option
from gpenvid.types import Image

if TYPE_CHECKING:  # it imports torch, which the command line doesn't wait for
    from gpenvid.perceptual import FaceFinder, Perceptual

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Wang, Simoncelli and Bovik 2003, from the finest scale to the coarsest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalOptions:
    """What is compared with what, and what is written."""

    restored: str = option("", "folder, picture or video to judge", metavar="PATH")
    truth: str = option("", "folder, picture or video that is right", metavar="PATH")
    before: str = option("", "folder, picture or video from which the restored one was made", metavar="PATH")
    sheet: str = option("", "write a before | after | truth contact sheet", metavar="FILE")
    json: str = option("", "write all figures, pair by pair", metavar="FILE")
    faces: bool = option(False, "judge only the faces, where the detector finds them in the truth")
    perceptual: bool = option(False, "also LPIPS, ArcFace identity and FID, as far as packages and weights are here")
    rows: int = option(12, "pairs on the contact sheet")
    side: int = option(256, "largest side of a picture on the contact sheet, in pixels")

    def __post_init__(self) -> None:
        """Refuse nonsense with an OptionsError."""
        for name in ("restored", "truth"):
            if not getattr(self, name):
                raise OptionsError(f"--{name}: a folder, picture or video is needed")
        for name in ("rows", "side"):
            if getattr(self, name) < 1:
                raise OptionsError(f"--{name} {getattr(self, name)}: must be 1 or more")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Pictures of one name, all RGB uint8 and of one size; before may be missing."""

    name: str
    restored: Image
    truth: Image
    before: Image | None = None


@dataclass(slots=True)
class Evaluation:
    """Figures of every pair, by name: after the restoration and, where it is known, before it.

    sets_after, sets_before: figures of all the pictures together, such as FID.
    """

    after: dict[str, dict[str, float]] = field(default_factory=dict)
    before: dict[str, dict[str, float]] = field(default_factory=dict)
    sets_after: dict[str, float] = field(default_factory=dict)
    sets_before: dict[str, float] = field(default_factory=dict)

    def means(self, figures: dict[str, dict[str, float]]) -> dict[str, float]:
        """The mean of each figure over the pairs for which it is finite; NaN if there is none."""
        names = dict.fromkeys(name for values in figures.values() for name in values)
        means = {}
        for name in names:
            values = np.array([v[name] for v in figures.values() if name in v])
            finite = values[np.isfinite(values)]
            means[name] = float(finite.mean()) if len(finite) else float("nan")
        return means

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text: a heading, then per figure its mean before (if known), after, and the change."""
        after, before = self.means(self.after) | self.sets_after, self.means(self.before) | self.sets_before
        if not before:
            return [("figure", "after"), *((name, f"{value:.4g}") for name, value in after.items())]
        rows: list[tuple[str, ...]] = [("figure", "before", "after", "change")]
        for name, value in after.items():
            old = before.get(name, float("nan"))
            rows.append((name, f"{old:.4g}", f"{value:.4g}", f"{value - old:+.4g}"))
        return rows

    def to_json(self) -> str:
        """Means and the figures of every pair; what isn't a finite number is null."""
        content = {
            "pairs": len(self.after),
            "mean": {"before": self.means(self.before), "after": self.means(self.after)},
            "sets": {"before": self.sets_before, "after": self.sets_after},
            "before": self.before,
            "after": self.after,
        }
        return json.dumps(_finite(content), indent=1)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(child) for key, child in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def ms_ssim(image: Image, truth: Image) -> float:
    """Multi-scale SSIM of the luma (Wang, Simoncelli and Bovik 2003), 11 x 11 Gaussian window, sigma 1.5.

    Pictures too small for five scales use as many as fit (the coarsest side at least 11), with the remaining weights
    brought to the sum 1. Negative contrast terms count as 0. Raises ValueError for other shapes or below 11 pixels.
    """
    if image.shape != truth.shape or min(image.shape[:2]) < 11:
        raise ValueError(f"need two pictures of one shape and at least 11 pixels, got {image.shape} and {truth.shape}")
    scales = min(len(MS_SSIM_WEIGHTS), int(np.log2(min(image.shape[:2]) / 11)) + 1)
    weights = np.array(MS_SSIM_WEIGHTS[:scales])
    weights /= weights.sum()
    x, y = (_luma(picture) for picture in (image, truth))
    result = 1.0
    for scale, weight in enumerate(weights):
        luminance, contrast = _ssim_terms(x, y)
        term = (luminance * contrast).mean() if scale == scales - 1 else contrast.mean()
        result *= max(float(term), 0.0) ** float(weight)
        height, width = (side // 2 * 2 for side in x.shape)
        x, y = (p[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) for p in (x, y))
    return result


def _luma(image: Image) -> NDArray[np.float64]:
    return np.asarray(image.astype(np.float64) @ (0.299, 0.587, 0.114))


def _ssim_terms(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """SSIM's luminance and contrast-structure maps, where the window lies within the picture."""

    def local(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5], dtype=np.float64)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = local(x), local(y)
    vx, vy, covariance = local(x * x) - mx * mx, local(y * y) - my * my, local(x * y) - mx * my
    return (2 * mx * my + c1) / (mx * mx + my * my + c1), (2 * covariance + c2) / (vx + vy + c2)


def colour_shift(image: Image, truth: Image) -> float:
    """Mean over the channels of the absolute difference of their means, in levels of 255."""
    difference = image.astype(np.float64).mean(axis=(0, 1)) - truth.astype(np.float64).mean(axis=(0, 1))
    return float(np.abs(difference).mean())


FIGURES: dict[str, Callable[[Image, Image], float]] = {
    "psnr": psnr,
    "ssim": ssim,
    "ms_ssim": ms_ssim,
    "gmsd": gmsd,
    "gradient_energy_ratio": gradient_energy_ratio,
    "colour_shift": colour_shift,
}


def landmark_distance(image: Image, truth: Image, detector: FaceFinder) -> float:
    """Mean distance of the five landmarks of the largest faces, as a share of the truth's inter-ocular distance.

    NaN if either picture shows no face to the detector.
    """
    found = [max(faces, key=lambda face: face.size, default=None) for faces in detector.detect([image, truth])]
    if found[0] is None or found[1] is None:
        return float("nan")
    here, there = found[0].landmarks, found[1].landmarks
    eyes = float(np.linalg.norm(there[0] - there[1]))
    return float(np.linalg.norm(here - there, axis=1).mean() / eyes)


def samples(restored: str | Path, truth: str | Path, before: str | Path | None = None) -> Iterator[Sample]:
    """Pair up the pictures of the sources, in order.

    Raises MediaError for what can't be read, for a name that has no counterpart, for videos of different lengths and
    for pictures of different sizes.
    """
    sources = [Path(restored), Path(truth), *([Path(before)] if before else [])]
    for path in sources:
        if not path.exists():
            raise MediaError(f"{path}: no such file or folder")
    together = _matched_by_name if sources[0].is_dir() else _matched_by_order
    for name, pictures in together(sources):
        shapes = {picture.shape for picture in pictures}
        if len(shapes) > 1:
            raise MediaError(f"{name}: the pictures have different sizes: {', '.join(map(str, sorted(shapes)))}")
        yield Sample(name, *pictures)


def _matched_by_name(folders: list[Path]) -> Iterator[tuple[str, list[Image]]]:
    files = [
        {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURES} for folder in folders
    ]
    if not files[0]:
        raise MediaError(f"{folders[0]}: no pictures ({', '.join(PICTURES)})")
    for name in files[0]:
        for folder, known in zip(folders, files, strict=True):
            if name not in known:
                raise MediaError(f"{folder}: no picture named {name}, which {folders[0]} has")
        yield name, [next(pictures_of(known[name])) for known in files]


def _matched_by_order(paths: list[Path]) -> Iterator[tuple[str, list[Image]]]:
    for number, pictures in enumerate(itertools.zip_longest(*(pictures_of(path) for path in paths))):
        missing = [path for path, picture in zip(paths, pictures, strict=True) if picture is None]
        if missing:
            raise MediaError(f"{missing[0]}: ends after {number} pictures, the other goes on")
        yield f"{paths[0].stem}-{number:06d}", list(pictures)


def read_picture(path: str | Path) -> Image:
    """Decode a picture file to RGB (H, W, 3). Raises MediaError if it can't be read."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise MediaError(f"{path}: not a readable picture")
    return np.ascontiguousarray(bgr[..., ::-1], dtype=np.uint8)


def pictures_of(path: Path) -> Iterator[Image]:
    """The picture of a picture file, or the pictures of a video one by one, RGB (H, W, 3). Raises MediaError."""
    if path.suffix.lower() in PICTURES:
        yield read_picture(path)
        return
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    except (av.FFmpegError, IndexError) as error:
        raise MediaError(f"{path}: not a readable video ({error})") from error


def faces_of(pairs: Iterable[Sample], detector: FaceFinder) -> Iterator[Sample]:
    """The boxes of the faces that the detector finds in each truth, cut out of all its pictures."""
    for sample in pairs:
        height, width = sample.truth.shape[:2]
        for number, face in enumerate(detector.detect([sample.truth])[0]):
            x0, y0 = np.clip(np.floor(face.box[:2]).astype(int), 0, (width, height))
            x1, y1 = np.clip(np.ceil(face.box[2:]).astype(int), 0, (width, height))
            if x1 - x0 < 16 or y1 - y0 < 16:
                continue
            cut = np.s_[y0:y1, x0:x1]
            before = None if sample.before is None else sample.before[cut]
            yield Sample(f"{sample.name} face {number}", sample.restored[cut], sample.truth[cut], before)


def evaluate(
    pairs: Iterable[Sample], detector: FaceFinder | None = None, perceptual: Perceptual | None = None
) -> Evaluation:
    """Measure every pair; with a detector also how far the restoration moved the landmarks. Keeps figures only."""
    figures = dict(FIGURES)
    if detector is not None:
        figures["landmark_distance"] = lambda image, truth: landmark_distance(image, truth, detector)
    figures |= perceptual.pairs if perceptual else {}
    makers = perceptual.sets if perceptual else {}
    sets_after, sets_before = ({name: make() for name, make in makers.items()} for _ in range(2))
    evaluation = Evaluation()
    for sample in pairs:
        for image, known, sets in (
            (sample.restored, evaluation.after, sets_after),
            (sample.before, evaluation.before, sets_before),
        ):
            if image is None:
                continue
            known[sample.name] = {name: float(figure(image, sample.truth)) for name, figure in figures.items()}
            for each in sets.values():
                each.add(image, sample.truth)
    evaluation.sets_after = {name: each.value() for name, each in sets_after.items()}
    if evaluation.before:
        evaluation.sets_before = {name: each.value() for name, each in sets_before.items()}
    return evaluation


def contact_sheet(shown: Sequence[Sample], side: int = 256) -> Image:
    """Before | after | truth, one row per sample, each picture scaled to at most `side` pixels and set on gray.

    Returns (rows * side, columns * side, 3); the column of the pictures before is left out if no sample has any.
    """
    with_before = any(sample.before is not None for sample in shown)
    rows = []
    for sample in shown:
        pictures = ([sample.before] if with_before else []) + [sample.restored, sample.truth]
        rows.append(np.hstack([_framed(picture, side) for picture in pictures]))
    return np.vstack(rows)


def _framed(picture: Image | None, side: int) -> Image:
    frame = np.full((side, side, 3), 128, np.uint8)
    if picture is not None:
        scale = side / max(picture.shape[:2])
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
        y, x = (side - size[1]) // 2, (side - size[0]) // 2
        frame[y : y + size[1], x : x + size[0]] = small
    return frame


def run_evaluation(
    options: EvalOptions, detector: FaceFinder | None = None, perceptual: Perceptual | None = None
) -> Evaluation:
    """Do what the options say: measure, and write the JSON and the contact sheet where asked.

    Raises MediaError as `samples` does, and if a file can't be written.
    """
    shown: list[Sample] = []
    pairs = samples(options.restored, options.truth, options.before or None)
    if options.faces:
        if detector is None:
            raise OptionsError("--faces: needs a detector")
        pairs = faces_of(pairs, detector)

    def kept() -> Iterator[Sample]:
        for sample in pairs:
            if options.sheet and len(shown) < options.rows:
                shown.append(sample)
            yield sample

    evaluation = evaluate(kept(), detector, perceptual)
    if options.json:
        try:
            Path(options.json).write_text(evaluation.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise MediaError(f"{options.json}: {error.strerror or error}") from error
    if options.sheet:
        write_picture(options.sheet, contact_sheet(shown, options.side))
    return evaluation


def write_picture(path: str | Path, image: Image) -> None:
    """Write RGB as the format of the suffix. Raises MediaError if that fails."""
    try:
        written = cv2.imwrite(str(path), image[..., ::-1])
    except cv2.error as error:
        raise MediaError(f"{path}: unknown picture format") from error
    if not written:
        raise MediaError(f"{path}: can't be written")
