"""Figures that a network gives: LPIPS, ArcFace identity and FID.

Each needs packages of the extra `eval` or weights that don't ship, or both; nothing is downloaded here. What is missing
is left out, with the reason.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gpenvid.errors import GpenvidError, OptionsError, WeightsError
from gpenvid.faces.align import crop, fit_similarity
from gpenvid.types import Face, Float, Image
from gpenvid.weights import Kind, find_state_dict, read_checkpoint, resolve

ARCFACE_SIZE = 112
ARCFACE_TEMPLATE: Float = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
"""Where ArcFace's training crops have the five landmarks (InsightFace), in 112 pixels."""
LEAST_LPIPS = 32
"""Shorter side in pixels below which AlexNet's last features don't exist."""

PairFigure = Callable[[Image, Image], float]
"""(image, truth), RGB uint8 of one shape, to a number; NaN where it means nothing."""


class SetFigure(Protocol):
    """A figure of two sets of pictures, not of pairs."""

    def add(self, image: Image, truth: Image) -> None:
        """Take in one picture of either set."""
        ...

    def value(self) -> float:
        """The figure so far; NaN if there are too few pictures."""
        ...


class FaceFinder(Protocol):
    """What finds the landmarks: any of `gpenvid.faces.detect`."""

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        """The faces of each picture."""
        ...


@dataclass(frozen=True, slots=True)
class Perceptual:
    """pairs: figures of a pair, by name; sets: makers of figures of sets; missing: why the others aren't there."""

    pairs: dict[str, PairFigure] = field(default_factory=dict)
    sets: dict[str, Callable[[], SetFigure]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def load_perceptual(detector: FaceFinder | None) -> Perceptual:
    """Load what is present. Never uses the network, never raises for what is absent or damaged."""
    pairs: dict[str, PairFigure] = {}
    sets: dict[str, Callable[[], SetFigure]] = {}
    missing: dict[str, str] = {}
    try:
        pairs["lpips"] = Lpips()
    except GpenvidError as error:
        missing["lpips"] = str(error)
    try:
        if detector is None:
            raise OptionsError("needs a detector")
        pairs["identity"] = Identity(detector)
    except GpenvidError as error:
        missing["identity"] = str(error)
    try:
        inception = Inception()
        sets["fid"] = lambda: Fid(inception)
    except GpenvidError as error:
        missing["fid"] = str(error)
    return Perceptual(pairs, sets, missing)


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018), AlexNet, version 0.1; 0 for equal pictures.

    Raises OptionsError without the package `lpips`, WeightsError without AlexNet's weights.
    """

    def __init__(self) -> None:
        lpips = _package("lpips")
        trunk = _weights("alexnet", "judge")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision about the way in which lpips asks for AlexNet
            self.network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        # lpips cuts torchvision's `features.N` into slices, and keeps N as the name within the slice.
        wanted = {key: f"features.{key.split('.', 1)[1]}" for key in self.network.net.state_dict()}
        _load(self.network.net, {key: trunk[name] for key, name in wanted.items() if name in trunk}, "alexnet")

    @torch.no_grad()
    def __call__(self, image: Image, truth: Image) -> float:
        """NaN for pictures of less than LEAST_LPIPS pixels."""
        if min(image.shape[:2]) < LEAST_LPIPS:
            return float("nan")
        return float(self.network(_signed(image), _signed(truth)))


class Identity:
    """Cosine of the angle between the ArcFace features of the largest face (Deng et al. 2019); 1 for one person.

    Both pictures are aligned by the truth's landmarks; NaN where the detector finds none. Raises WeightsError.
    """

    def __init__(self, detector: FaceFinder) -> None:
        from facexlib.recognition.arcface_arch import Backbone

        self.detector = detector
        state = _weights("arcface", "recogniser")
        self.network = Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se").eval()
        _load(self.network, state, "arcface")

    @torch.no_grad()
    def __call__(self, image: Image, truth: Image) -> float:
        """In [-1, 1]."""
        face = max(self.detector.detect([truth])[0], key=lambda face: face.size, default=None)
        if face is None:
            return float("nan")
        template = (ARCFACE_TEMPLATE + 0.5) * (512 / ARCFACE_SIZE) - 0.5
        matrix = fit_similarity(face.landmarks, ARCFACE_SIZE, template=template)
        # These weights were trained on BGR (github.com/TreB1eN/InsightFace_Pytorch/issues/13).
        aligned = [_signed(crop(picture, matrix, ARCFACE_SIZE)[..., ::-1]) for picture in (image, truth)]
        one, other = self.network(torch.cat(aligned))
        return float(nn.functional.cosine_similarity(one, other, dim=0))


class Inception:
    """The features on which FID rests: Inception-v3 as in its first implementation, 2,048 numbers a picture.

    Raises OptionsError without the packages torchmetrics and torch-fidelity, WeightsError without the weights.
    """

    def __init__(self) -> None:
        fid = _package("torchmetrics.image.fid")
        _package("torch_fidelity")
        path = str(resolve("inception", "judge", offline=True).path)
        try:
            self.network = fid.NoTrainInceptionV3("inception-v3-compat", ["2048"], path)
        except Exception as error:  # whatever a file of something else makes it raise
            raise WeightsError(f"{path}: not the weights of FID's Inception ({type(error).__name__})") from None
        self.metric: Any = fid.FrechetInceptionDistance
        self._truth: tuple[Image, Tensor] | None = None

    @torch.no_grad()
    def features(self, picture: Image) -> Tensor:
        """Those of an RGB uint8 picture, (1, 2048)."""
        features: Tensor = self.network(torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None])
        return features

    def truth(self, picture: Image) -> Tensor:
        """Like `features`, but the last one is remembered: before and after share their truth."""
        if self._truth is None or self._truth[0] is not picture:
            self._truth = (picture, self.features(picture))
        return self._truth[1]


class _Known(nn.Identity):
    """Stands for the network where the features are known already."""

    num_features = 2048


class Fid:
    """Frechet distance between the features of two sets (Heusel et al. 2017). Thousands of pictures make it steady."""

    def __init__(self, inception: Inception) -> None:
        self.inception = inception
        self.metric = inception.metric(feature=_Known())
        self.count = 0

    def add(self, image: Image, truth: Image) -> None:
        """Take in one picture of either set."""
        self.metric.update(self.inception.features(image), real=False)
        self.metric.update(self.inception.truth(truth), real=True)
        self.count += 1

    def value(self) -> float:
        """NaN for fewer than two pairs."""
        return float(self.metric.compute()) if self.count > 1 else float("nan")


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OptionsError(f"needs {error.name or name}; pip install 'gpenvid[eval]'") from None


def _weights(name: str, kind: Kind) -> dict[str, Tensor]:
    path = resolve(name, kind, offline=True).path
    try:
        return find_state_dict(read_checkpoint(path), ("state_dict",))
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None


def _load(network: nn.Module, state: dict[str, Tensor], name: str) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{name}: weights of another network ({str(error).splitlines()[0]})") from None


def _signed(picture: Image) -> Tensor:
    """RGB uint8 (H, W, 3) to float32 (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].float() / 127.5 - 1
