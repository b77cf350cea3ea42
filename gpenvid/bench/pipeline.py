"""The whole program on a film with faces, against the way that image restorers are used on video."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast
from unittest import mock

import av
import cv2
import numpy as np
import torch
from av.video.stream import VideoStream
from facexlib.detection.retinaface import RetinaFace
from facexlib.utils import face_restoration_helper as facexlib_helper

from gpenvid.bench import Table, bottleneck
from gpenvid.bench.clips import RATE, make_clip
from gpenvid.bench.restorer import present
from gpenvid.faces.detect import Detector, load_detector, load_network
from gpenvid.gpen.restorer import GpenRestorer
from gpenvid.run import enhance
from gpenvid.types import Face, Image
from gpenvid.weights import resolve

FACES = 2
"""Faces in each picture of the film. No way restores more, so that none pays for what its detector takes for a face."""

CONFIDENT = 0.6
"""The least score of a face, picture by picture. facexlib's helper asks for 0.97, a figure for other weights."""


def run(
    seconds: float = 4,
    size: tuple[int, int] = (1280, 720),
    *,
    rounds: int = 3,
    preset: str = "veryfast",
    device: str = "auto",
    large: tuple[int, int] = (1920, 1080),
) -> list[Table]:
    """Measure; takes some minutes at the default sizes.

    Pictures a second of a film with two faces, decoded, restored and encoded, with the same detector, restorer and
    encoder settings: picture by picture and face by face with facexlib's FaceRestoreHelper (detection in the full
    picture, the whole picture warped and blended for each face), and as gpenvid does. In turns in one process; the
    ratio is the median over the rounds. Also: where gpenvid's time goes, and how near it comes to its slowest stage
    (see `bottleneck`) in a larger film; on a graphics card decoded there, too. The restorer is `restorer.present`, on
    the device.
    """
    restorer = present(device)
    placements = ("none", "auto") if restorer.device.type == "cuda" else ("none",)
    return [
        *_against_picture_by_picture(restorer, seconds, size, rounds, preset),
        *(
            bottleneck.measure(
                restorer,
                load_detector(device=restorer.device, threshold=0.3),
                hwaccel=hwaccel,
                seconds=seconds / 2,
                size=large,
                rounds=rounds,
                preset=preset,
            )
            for hwaccel in placements
        ),
    ]


def _against_picture_by_picture(
    restorer: GpenRestorer, seconds: float, size: tuple[int, int], rounds: int, preset: str
) -> list[Table]:
    """Both ways over one film, and where gpenvid's time went."""
    with tempfile.TemporaryDirectory(prefix="gpenvid-bench-") as folder:
        source, target = Path(folder) / "in.mp4", Path(folder) / "out.mp4"
        count = make_clip(source, seconds, size, faces=FACES)
        stages: list[dict[str, float]] = []

        def ours() -> int:
            detector = Best(load_detector(device=restorer.device, threshold=0.3))
            report = enhance(source, target, restorer=restorer, detector=detector, codec="libx264", preset=preset)
            stages.append(report.stages)
            return report.counts.restored

        per_picture = PerPicture(restorer)
        ways: dict[str, Callable[[], int]] = {
            "picture by picture": lambda: per_picture.film(source, target, preset),
            "gpenvid": ours,
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        faces: dict[str, int] = {}
        for _ in range(rounds):
            for name, way in ways.items():
                begin = time.perf_counter()
                faces[name] = way()
                took[name].append(time.perf_counter() - begin)
    slow = took["picture by picture"]
    rows: list[tuple[str | float, ...]] = [
        (
            name,
            count / statistics.median(times),
            statistics.median(base / own for base, own in zip(slow, times, strict=True)),
            faces[name] / count,
        )
        for name, times in took.items()
    ]
    spent: list[tuple[str | float, ...]] = [
        (stage, statistics.median(1000 * each[stage] / count for each in stages)) for stage in stages[0]
    ]
    title = f"Pipeline, {count} pictures of {size[0]}x{size[1]} with two faces, {restorer.name} on {restorer.device}"
    return [
        Table(title, ("way", "pictures a second", "ratio", "faces a picture"), rows),
        Table("gpenvid's stages, which overlap", ("stage", "ms a picture"), spent),
    ]


class Best:
    """A detector's surest faces of each picture, as many as there are."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        """See `Detector.detect`."""
        return [
            sorted(faces, key=lambda face: face.score, reverse=True)[:FACES] for faces in self.detector.detect(images)
        ]


class PerPicture:
    """Decode, restore and encode one picture after the other, as a script around facexlib does."""

    def __init__(self, restorer: GpenRestorer) -> None:
        self.device, self.network = restorer.device, restorer.network
        self.helper = helper(restorer.size, load_network(resolve("auto", "detector").path), self.device)

    def film(self, source: Path, target: Path, preset: str) -> int:
        """A whole film, its sound copied; returns the number of restored faces."""
        faces = 0
        with av.open(str(source)) as container, av.open(str(target), "w") as output:
            video = container.streams.video[0]
            video.thread_type = "AUTO"
            encoder = cast(
                VideoStream, output.add_stream("libx264", rate=RATE, options={"crf": "17", "preset": preset})
            )
            encoder.codec_context.width, encoder.codec_context.height = video.width, video.height
            encoder.codec_context.pix_fmt = "yuv420p"
            sound = output.add_stream_from_template(container.streams.audio[0])
            for packet in container.demux():
                if packet.stream.type == "audio":
                    if packet.size:
                        packet.stream = sound
                        output.mux(packet)
                    continue
                for frame in cast("list[av.VideoFrame]", packet.decode()):
                    picture, found = self.picture(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8))
                    faces += found
                    better = av.VideoFrame.from_ndarray(picture, "bgr24")
                    better.pts, better.time_base = frame.pts, frame.time_base
                    output.mux(encoder.encode(better))
            output.mux(encoder.encode(None))
        return faces

    def picture(self, bgr: Image) -> tuple[Image, int]:
        """One picture (H, W, 3) uint8 BGR; returns it with its faces restored, and how many these were."""
        helper = self.helper
        helper.clean_all()
        helper.read_image(bgr)
        helper.get_face_landmarks_5(eye_dist_threshold=5)
        helper.align_warp_face()
        for crop in helper.cropped_faces:
            helper.add_restored_face(self._face(crop))
        if not helper.restored_faces:
            return bgr, 0
        helper.get_inverse_affine(None)
        return helper.paste_faces_to_input_image(), len(helper.restored_faces)

    @torch.inference_mode()
    def _face(self, bgr: Image) -> Image:
        rgb = torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)).to(self.device)
        batch = rgb.permute(2, 0, 1)[None].float() / 127.5 - 1
        restored = ((self.network(batch)[0].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        face: Image = cv2.cvtColor(restored.permute(1, 2, 0).contiguous().cpu().numpy(), cv2.COLOR_RGB2BGR)
        return face


def helper(size: int, detector: RetinaFace, device: torch.device) -> facexlib_helper.FaceRestoreHelper:
    """facexlib's FaceRestoreHelper around a loaded detector, without the parser that it would download."""
    detector.to(device).eval()
    detector.device, detector.half_inference = device, False
    detect = detector.detect_faces
    detector.detect_faces = lambda picture, _: detect(picture, CONFIDENT)[:FACES]  # the surest come first
    with (
        mock.patch.object(facexlib_helper, "init_detection_model", return_value=detector),
        mock.patch.object(facexlib_helper, "init_parsing_model", return_value=None),
    ):
        return facexlib_helper.FaceRestoreHelper(1, face_size=size, device=device)
