"""Finds faces: the Detector protocol, and facexlib's RetinaFace behind it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from facexlib.detection.retinaface import RetinaFace
from facexlib.detection.retinaface_utils import PriorBox, decode, decode_landm
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import box_iou, nms

from gpenvid import weights
from gpenvid.device import resolve_device
from gpenvid.errors import DeviceError, WeightsError
from gpenvid.faces.checkpoint import read_state_dict
from gpenvid.faces.closeup import SURE, CloseUp, believed, close_up, landmarks_of, mirrored
from gpenvid.types import Face, Float, Image

NMS_THRESHOLD = 0.4
SUPPORT, SAME_FACE = 0.3, 0.6
"""Anchors of at least this score and this overlap with a face have a say in where it is."""
DOUBTFUL, SPECK = 0.2, 0.05
"""Faces of at least this score are worth a second look; what is found there for its landmarks, of this one."""
MEAN_BGR = (104.0, 117.0, 123.0)
"""What RetinaFace subtracts from blue, green and red."""

_BATCH_PIXELS = 2_000_000
"""Most pixels in one pass of the network: beyond this a larger batch only costs memory."""

_CLOSE_UPS = 24
"""Most faces in one pass of the second look, so that a crowd needs no more memory than a picture."""

_KNOWN_BY = {"body.stage1.0.0.weight": "mobile0.25", "body.layer1.0.conv1.weight": "resnet50"}
"""A key that only this architecture's state dict has."""


@runtime_checkable
class Detector(Protocol):
    """Finds faces in pictures."""

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        """Find the faces of each picture.

        images: RGB or gray uint8, (H, W, 3), (H, W, 1) or (H, W), of any sizes, possibly none. Returns a list per
        picture, in order, sorted by descending score, in the pixels of that picture. A face that the border cuts may
        reach beyond it.
        """
        ...


class RetinaFaceDetector:
    """facexlib's RetinaFace network behind the Detector protocol.

    Uses the network and its decoding, not facexlib's per-call state, so pictures of one size run as one batch. The
    instance caches anchors: use one per thread. name and sha256: of the weights.
    """

    def __init__(
        self,
        network: RetinaFace,
        *,
        device: str | torch.device = "auto",
        threshold: float = 0.6,
        min_face: float = 0.0,
        max_faces: int = 0,
        half: bool | None = None,
        name: str = "",
        sha256: str = "",
    ) -> None:
        """Take over a loaded network (it is modified: put on the device, normalisation folded into convolutions).

        threshold: least score; min_face: least longer side of a box in pixels of the pictures given; max_faces: keep
        the largest so many per picture, 0 for all; half: compute in float16, by default on a graphics card. Raises
        DeviceError if the device isn't there.
        """
        self.device = resolve_device(device)
        self.threshold = threshold
        self.min_face = min_face
        self.max_faces = max_faces
        self.architecture = str(network.model_name)
        self.name = name
        self.sha256 = sha256
        self._network = network.requires_grad_(False).eval()
        _fold_batch_norm(self._network)
        half = self.device.type == "cuda" if half is None else half
        self._dtype = torch.float16 if half else torch.float32
        if half:
            self._network.half()
        self._network.to(self.device, memory_format=torch.channels_last)
        self._mean = torch.tensor(MEAN_BGR, device=self.device).view(1, 3, 1, 1)
        self._anchors: dict[tuple[int, int], Tensor] = {}

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        """Find the faces of each picture; see Detector.detect. Raises ValueError for an array of another kind."""
        pictures = [_as_rgb(image) for image in images]
        groups: dict[tuple[int, int], list[int]] = {}
        for index, picture in enumerate(pictures):
            groups.setdefault((picture.shape[0], picture.shape[1]), []).append(index)
        found: list[list[Face]] = [[] for _ in pictures]
        for (height, width), members in groups.items():
            if height == 0 or width == 0:
                continue
            step = max(1, _BATCH_PIXELS // (height * width))
            for start in range(0, len(members), step):
                batch = members[start : start + step]
                for index, faces in zip(batch, self._detect_batch([pictures[i] for i in batch]), strict=True):
                    found[index] = faces
        return found

    @torch.inference_mode()
    def _detect_batch(self, pictures: list[Image]) -> list[list[Face]]:
        height, width = pictures[0].shape[:2]
        rgb = torch.from_numpy(np.stack(pictures)).to(self.device)
        bgr = rgb.flip(3).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)
        try:
            boxes, scores, landmarks = (part.float() for part in self._network((bgr - self._mean).to(self._dtype)))
        except torch.cuda.OutOfMemoryError as error:
            reason = f"out of memory for {len(pictures)} pictures of {width}x{height}; use a smaller --detect-size"
            raise DeviceError(f"{self.device}: {reason}") from error
        anchors = self._anchors_for(height, width)
        found = []
        for answer in zip(boxes, scores, landmarks, strict=True):
            table = faces_in(self._network, answer, anchors, (width, height), self.threshold).cpu().numpy()
            faces = [Face(row[:4].copy(), row[4:14].reshape(5, 2).copy(), float(row[14])) for row in table]
            found.append(limit_faces(faces, min_face=self.min_face, max_faces=self.max_faces))
        return found

    def _anchors_for(self, height: int, width: int) -> Tensor:
        """Return the anchors for a picture size; those of the last few sizes are kept."""
        anchors = self._anchors.pop((height, width), None)
        if anchors is None:
            anchors = anchors_of(self._network, height, width).to(self.device)
        self._anchors[(height, width)] = anchors
        if len(self._anchors) > 4:
            del self._anchors[next(iter(self._anchors))]
        return anchors


class SecondLook:
    """A detector that looks at every face that another one found once more, close and upright; see `closeup`.

    Landmarks become truer, most of all those of small and tilted faces, and what was no face is seen to be none.
    name, sha256 and device are those of the other one.
    """

    def __init__(self, detector: Detector, threshold: float = 0.6, closer: Detector | None = None) -> None:
        """detector: should find all of score DOUBTFUL and more; threshold: least score after the second look; closer:
        finds the landmarks in close-ups, whatever the score of what is there; the same detector by default.
        """
        self.detector = detector
        self.closer = closer or detector
        self.threshold = threshold
        self.name: str = getattr(detector, "name", "")
        self.sha256: str = getattr(detector, "sha256", "")
        self.device = torch.device(getattr(detector, "device", "cpu"))

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        """Find the faces of each picture; see Detector.detect."""
        pictures = [_as_rgb(image) for image in images]
        first = [(picture, face) for picture, faces in enumerate(self.detector.detect(pictures)) for face in faces]
        found: list[list[Face]] = [[] for _ in pictures]
        for start in range(0, len(first), _CLOSE_UPS):
            some = first[start : start + _CLOSE_UPS]
            seen = self._look([(face, close_up(pictures[picture], face)) for picture, face in some])
            for (picture, _), again in zip(some, seen, strict=True):
                if again is not None:
                    found[picture].append(again)
        return [sorted(faces, key=lambda face: face.score, reverse=True) for faces in found]

    def _look(self, faces: list[tuple[Face, CloseUp]]) -> list[Face | None]:
        """See whether those faces are, which is asked only of those that aren't sure, and where their landmarks are."""
        scores = [face.score for face, _ in faces]
        unsure = [i for i, score in enumerate(scores) if score < SURE]
        judged = dict(zip(unsure, self.detector.detect([faces[i][1].picture for i in unsure]), strict=True))
        for i, seen in judged.items():
            scores[i] = believed(faces[i][0], seen)
        kept = [i for i, score in enumerate(scores) if score > self.threshold]
        plain = judged if self.closer is self.detector else {}
        fresh = [i for i in kept if i not in plain]
        close = [faces[i][1].picture for i in fresh] + [mirrored(faces[i][1].picture) for i in kept]
        placed = self.closer.detect(close)
        plain |= dict(zip(fresh, placed, strict=False))
        result: list[Face | None] = [None] * len(faces)
        for i, turned in zip(kept, placed[len(fresh) :], strict=True):
            face, view = faces[i]
            result[i] = Face(face.box, landmarks_of(face, view.matrix, plain[i], turned), scores[i])
        return result


def faces_in(
    network: RetinaFace, answer: tuple[Tensor, Tensor, Tensor], anchors: Tensor, size: tuple[int, int], threshold: float
) -> Tensor:
    """Turn the network's answer for a picture (boxes, scores, landmarks of every anchor) into faces, best first.

    size: (width, height); threshold: least score. Returns (n, 15): box, landmarks, score. Many anchors see the same
    face, each a little differently: instead of the best one's, a face's box and landmarks are the mean of all that
    overlap it, weighted by their scores, as in BlazeFace (Bazarevsky et al. 2019).
    """
    boxes, scores, landmarks = answer
    chosen = (scores[:, 1] > min(threshold, SUPPORT)).nonzero().squeeze(1)
    scores, anchors = scores[chosen, 1], anchors[chosen]
    variances = network.cfg["variance"]
    rows = torch.cat(
        [decode(boxes[chosen], anchors, variances), decode_landm(landmarks[chosen], anchors, variances)], 1
    )
    rows = rows * torch.tensor(size, dtype=rows.dtype, device=rows.device).repeat(7)
    finite = rows.isfinite().all(1)
    rows, scores = rows[finite], scores[finite]
    kept = nms(rows[:, :4], scores, NMS_THRESHOLD)
    kept = kept[scores[kept] > threshold]
    shares = scores * (box_iou(rows[kept, :4], rows[:, :4]) >= SAME_FACE)
    return torch.cat([shares @ rows / shares.sum(1, keepdim=True), scores[kept, None]], 1)


def anchors_of(network: RetinaFace, height: int, width: int) -> Tensor:
    """Return facexlib's prior boxes for a picture size, relative to it: (A, 4), centre and size."""
    anchors: Tensor = PriorBox(network.cfg, image_size=(height, width)).forward()
    return anchors


def limit_faces(faces: Sequence[Face], *, min_face: float = 0.0, max_faces: int = 0) -> list[Face]:
    """Drop faces whose longer side is under min_face pixels, then keep the max_faces largest (0: all), in order."""
    kept = [face for face in faces if face.size >= min_face]
    if 0 < max_faces < len(kept):
        largest = sorted(range(len(kept)), key=lambda i: -kept[i].size)[:max_faces]
        kept = [kept[i] for i in sorted(largest)]
    return kept


def rescale_faces(faces: Sequence[Face], source: tuple[int, int], target: tuple[int, int]) -> list[Face]:
    """Map faces found in a resized copy to the pixels of the original.

    source: (width, height) of the copy; target: that of the original. Keeps pixel centres: x -> (x + 0.5) * s - 0.5.
    """
    scale = np.array([target[0] / source[0], target[1] / source[1]])

    def moved(points: Float) -> Float:
        return np.asarray((points.reshape(-1, 2) + 0.5) * scale - 0.5, np.float32)

    return [Face(moved(face.box).reshape(4), moved(face.landmarks), face.score) for face in faces]


def load_detector(
    name_or_path: str | os.PathLike[str] = "auto",
    *,
    device: str | torch.device = "auto",
    threshold: float = 0.6,
    second_look: bool = True,
    weights_dir: str | Path | None = None,
    offline: bool | None = None,
) -> Detector:
    """Load a face detector from weights: `auto` (the best that is present and verified), a registered name, or a file.

    The architecture is read from the state dict. second_look: look at each face twice (see `SecondLook`), the second
    time with the weights that are registered for that, or with the same. A registered name that isn't present is
    downloaded, unless `offline` (default: $GPENVID_OFFLINE). Raises WeightsError if the weights are missing, damaged or
    of another kind, DeviceError if the device isn't there.
    """
    place = resolve_device(device)
    folder = None if weights_dir is None else Path(weights_dir)
    found = weights.resolve(name_or_path, "detector", weights_dir=folder, offline=offline)
    detector = RetinaFaceDetector(
        load_network(found.path),
        device=place,
        threshold=min(threshold, DOUBTFUL) if second_look else threshold,
        name=found.name,
        sha256=found.sha256,
    )
    if not second_look:
        return detector
    specialist = weights.entry(found.name).closeup if found.verified else ""
    if not specialist:
        return SecondLook(detector, threshold)
    close = weights.resolve(specialist, "closeup", weights_dir=folder, offline=offline)
    closer = RetinaFaceDetector(load_network(close.path), device=place, threshold=SPECK)
    return SecondLook(detector, threshold, closer)


def load_network(path: Path) -> RetinaFace:
    """Build facexlib's RetinaFace on the CPU from a state dict file, reading the architecture from its keys.

    Raises WeightsError, which names the file, if it is missing, unsafe, damaged or something else.
    """
    state = read_state_dict(path)
    names = [name for key, name in _KNOWN_BY.items() if key in state]
    if not names:
        raise WeightsError(f"{path.name}: not a RetinaFace (resnet50 or mobile0.25) state dict")
    network = build_network(names[0])
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip()[:100]
        raise WeightsError(f"{path.name}: not a complete RetinaFace {names[0]} ({detail})") from error
    return network


def build_network(name: str) -> RetinaFace:
    """Build facexlib's RetinaFace `resnet50` or `mobile0.25` on the CPU, with random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # facexlib calls torchvision by an argument name that it deprecates
        return RetinaFace(network_name=name, device=torch.device("cpu"))


def _as_rgb(image: Image) -> Image:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise ValueError(f"a picture must be uint8 (H, W, 3) or gray, got {image.dtype} {image.shape}")
    if image.ndim == 3 and image.shape[2] == 3:
        return image
    return np.ascontiguousarray(np.broadcast_to(image.reshape(*image.shape[:2], 1), (*image.shape[:2], 3)))


def _fold_batch_norm(module: nn.Module) -> None:
    """Fold each batch normalisation registered after a convolution into it: the same function, fewer memory passes."""
    children = list(module.named_children())
    for _, child in children:
        _fold_batch_norm(child)
    for (name, convolution), (norm_name, norm) in pairwise(children):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(convolution, norm))
            setattr(module, norm_name, nn.Identity())
