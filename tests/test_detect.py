"""Detection: the protocol that every detector keeps, and facexlib's RetinaFace behind it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from facexlib.detection.retinaface import RetinaFace
from torchvision.ops import box_iou

from gpenvid.errors import DeviceError, WeightsError
from gpenvid.faces.detect import (
    Detector,
    RetinaFaceDetector,
    SecondLook,
    build_network,
    limit_faces,
    load_detector,
    load_network,
    rescale_faces,
)
from gpenvid.types import Face, Image
from gpenvid.weights import resolve

SAMPLE = Path(__file__).parent.parent / "samples" / "portrait.jpg"


def seeded_network(name: str) -> RetinaFace:
    """facexlib's network with reproducible random weights that find "faces" in noise."""
    torch.manual_seed(7)
    network = build_network(name)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.8, 1.6)
            module.bias.data.normal_(0, 0.1)
    return network


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mobile.pth"
    torch.save({f"module.{key}": value for key, value in seeded_network("mobile0.25").state_dict().items()}, path)
    return path


class BrightestPixel:
    """A detector that needs no network: one face round the brightest pixel of a picture that isn't black."""

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        return [self._one(np.atleast_3d(image).max(axis=2)) for image in images]

    def _one(self, gray: Image) -> list[Face]:
        if not gray.any():
            return []
        y, x = np.unravel_index(gray.argmax(), gray.shape)
        box = np.array([x - 4, y - 4, x + 4, y + 4], np.float32)
        return [Face(box, np.tile(np.float32([x, y]), (5, 1)), float(gray.max()) / 255)]


@pytest.fixture(params=["fake", "mobile0.25", "looking twice"])
def detector(request: pytest.FixtureRequest, weights: Path) -> Detector:
    if request.param == "mobile0.25":
        return load_detector(weights, device="cpu", threshold=0.4, second_look=False)
    return BrightestPixel() if request.param == "fake" else SecondLook(BrightestPixel(), 0.4)


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def table(faces: Sequence[Face]) -> np.ndarray:
    return np.array([[*face.box, face.score, *face.landmarks.ravel()] for face in faces]).reshape(-1, 15)


def assert_same_faces(found: np.ndarray, expected: np.ndarray, atol: float) -> None:
    """Equal up to rounding, which may swap two faces of the same score."""
    assert found.shape == expected.shape
    distance = np.abs(found[:, None] - expected[None]).max(axis=2)
    nearest = distance.argmin(axis=1)
    assert sorted(nearest) == list(range(len(expected)))
    assert len(found) == 0 or distance.min(axis=1).max() < atol


class TestProtocol:
    def test_it_is_a_detector(self, detector: Detector) -> None:
        assert isinstance(detector, Detector)

    def test_no_pictures_no_lists(self, detector: Detector) -> None:
        assert detector.detect([]) == []

    def test_a_list_per_picture_in_order_whatever_the_sizes(self, detector: Detector) -> None:
        images = [noise(64, 96, 1), noise(80, 64, 2), noise(64, 96, 3), noise(33, 47, 4), noise(80, 64, 5)]
        together = detector.detect(images)
        assert len(together) == 5
        assert any(together)
        for image, faces in zip(images, together, strict=True):
            assert_same_faces(table(faces), table(detector.detect([image])[0]), 2e-3)

    def test_best_first_and_well_formed(self, detector: Detector) -> None:
        for faces in detector.detect([noise(96, 128, 1), noise(96, 128, 2)]):
            scores = [face.score for face in faces]
            assert scores == sorted(scores, reverse=True)
            for face in faces:
                assert face.box.dtype == face.landmarks.dtype == np.float32
                assert face.box[0] < face.box[2] and face.box[1] < face.box[3]
                assert 0 <= face.score <= 1

    @pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (5, 3, 3), (40, 30), (40, 30, 1)])
    def test_tiny_and_gray_pictures(self, detector: Detector, shape: tuple[int, ...]) -> None:
        gray = np.random.default_rng(1).integers(1, 256, shape, np.uint8)
        as_rgb = np.broadcast_to(np.atleast_3d(gray), (*shape[:2], 3)).copy()
        np.testing.assert_array_equal(table(detector.detect([gray])[0]), table(detector.detect([as_rgb])[0]))

    def test_the_pictures_are_only_read(self, detector: Detector) -> None:
        image = noise(64, 64)
        image.setflags(write=False)
        before = image.copy()
        detector.detect([image])
        np.testing.assert_array_equal(image, before)


class TestRetinaFace:
    @pytest.mark.parametrize("shape", [(96, 128), (121, 75), (40, 200)])
    @torch.inference_mode()
    def test_a_face_is_the_mean_of_what_facexlibs_anchors_say_of_it(
        self, weights: Path, shape: tuple[int, int]
    ) -> None:
        image = noise(*shape)
        network, bgr = load_network(weights), image[..., ::-1].copy()
        best = network.detect_faces(bgr, conf_threshold=0.45, nms_threshold=0.4)
        everyone = torch.from_numpy(network.detect_faces(bgr, conf_threshold=0.3, nms_threshold=1.0))
        expected = []
        for row in torch.from_numpy(best):
            near = everyone[box_iou(row[None, :4], everyone[:, :4])[0] >= 0.6]
            mean = (near * near[:, 4:5]).sum(0) / near[:, 4].sum()
            expected.append([*mean[:4], row[4], *mean[5:]])
        faces = load_detector(weights, device="cpu", threshold=0.45, second_look=False).detect([image])[0]
        assert len(faces) > 3
        assert_same_faces(table(faces), np.array(expected), 1e-3)
        assert np.abs(table(faces) - best).max() > 0.1

    @pytest.mark.parametrize("name", ["mobile0.25", "resnet50"])
    def test_folding_the_normalisation_changes_nothing(self, name: str) -> None:
        image = torch.rand(1, 3, 32, 24, dtype=torch.float64) * 100
        network = seeded_network(name).double()
        with torch.inference_mode():
            before = network(image)
            RetinaFaceDetector(network, device="cpu")
            after = network(image)
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
        for a, b in zip(before, after, strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)

    @pytest.mark.parametrize("name", ["mobile0.25", "resnet50"])
    def test_the_architecture_is_read_from_the_weights(self, tmp_path: Path, name: str) -> None:
        torch.save({"state_dict": build_network(name).state_dict()}, tmp_path / "w.pth")
        detector = load_detector(tmp_path / "w.pth", device="cpu", second_look=False)
        assert isinstance(detector, RetinaFaceDetector)
        assert detector.architecture == f"retinaface_{name}"
        assert (detector.name, len(detector.sha256)) == ("w", 64)
        twice = load_detector(tmp_path / "w.pth", device="cpu")
        assert isinstance(twice, SecondLook)
        assert (twice.name, twice.sha256, twice.device) == (detector.name, detector.sha256, detector.device)

    def test_half_precision_finds_the_same_faces(self) -> None:
        picture = cv2.cvtColor(cv2.imread(str(SAMPLE)), cv2.COLOR_BGR2RGB)
        path = resolve("retinaface-lite", "detector").path
        full, half = (
            RetinaFaceDetector(load_network(path), device="cpu", threshold=0.7, half=half).detect([picture])[0]
            for half in (False, True)
        )
        assert len(full) == len(half) > 0
        for one, other in zip(full, half, strict=True):
            assert other.box.dtype == other.landmarks.dtype == np.float32
            np.testing.assert_allclose(other.box, one.box, atol=0.01 * one.size)
            np.testing.assert_allclose(other.landmarks, one.landmarks, atol=0.005 * one.size)
            assert other.score == pytest.approx(one.score, abs=0.01)

    def test_a_higher_threshold_gives_fewer_faces(self, weights: Path) -> None:
        image = noise(96, 128)
        many, few = (load_detector(weights, device="cpu", threshold=t).detect([image])[0] for t in (0.4, 0.55))
        assert len(many) > len(few)
        assert min(face.score for face in many) > 0.4
        assert [face.score for face in few] == [face.score for face in many if face.score > 0.55][: len(few)]

    def test_smallest_size_and_greatest_number(self, weights: Path) -> None:
        image = noise(96, 128)
        everything = load_detector(weights, device="cpu", threshold=0.4, second_look=False).detect([image])[0]
        size = sorted(face.size for face in everything)[len(everything) // 2]
        network = load_network(weights)
        chosen = RetinaFaceDetector(network, device="cpu", threshold=0.4, min_face=size, max_faces=2).detect([image])[0]
        assert sorted(face.size for face in chosen) == sorted(face.size for face in everything)[-2:]

    def test_many_picture_sizes_keep_few_anchors(self, weights: Path) -> None:
        detector = RetinaFaceDetector(load_network(weights), device="cpu")
        detector.detect([noise(8, 8 + n) for n in range(9)])
        assert len(detector._anchors) <= 4

    def test_a_picture_of_another_kind_is_refused(self, weights: Path) -> None:
        detector = load_detector(weights, device="cpu")
        for bad in (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)):
            with pytest.raises(ValueError, match="a picture must be uint8"):
                detector.detect([bad])

    def test_one_detector_per_thread(self, weights: Path) -> None:
        images = [noise(64, 96, seed) for seed in range(4)]
        expected = table(load_detector(weights, device="cpu", threshold=0.4, second_look=False).detect(images[:1])[0])
        found: dict[int, np.ndarray] = {}

        def work(index: int) -> None:
            own = load_detector(weights, device="cpu", threshold=0.4, second_look=False)
            found[index] = table(own.detect(images)[0])

        threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index in range(3):
            assert_same_faces(found[index], expected, 2e-3)


class _Bomb:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("exit 1",)


class TestWrongWeights:
    def wrong(self, path: Path) -> str:
        with pytest.raises(WeightsError) as caught:
            load_detector(path, device="cpu")
        message = str(caught.value)
        assert path.name in message and "\n" not in message and len(message) < 250
        return message

    def test_missing(self, tmp_path: Path) -> None:
        assert "no such file" in self.wrong(tmp_path / "none.pth").lower()

    def test_an_unknown_name(self) -> None:
        with pytest.raises(WeightsError, match="retinaface_resnet50"):
            load_detector("retinaface_resnet", device="cpu")
        with pytest.raises(WeightsError, match="is a restorer, not a detector"):
            load_detector("GPEN-BFR-512", device="cpu")

    def test_none_present(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gpenvid.weights.files.search_path", lambda weights_dir=None: [tmp_path])
        monkeypatch.setattr("gpenvid.weights.choose.search_path", lambda weights_dir=None: [tmp_path])
        with pytest.raises(WeightsError, match="gpenvid weights fetch retinaface"):
            load_detector("auto", device="cpu")

    def test_a_folder(self, tmp_path: Path) -> None:
        self.wrong(tmp_path)

    def test_not_a_weights_file(self, tmp_path: Path) -> None:
        path = tmp_path / "text.pth"
        for content in (b"", b"<html>not found</html>", b"\x80\x02}q\x00."):
            path.write_bytes(content)
            self.wrong(path)

    def test_truncated(self, tmp_path: Path, weights: Path) -> None:
        path = tmp_path / "half.pth"
        path.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        assert "truncated or not a PyTorch checkpoint" in self.wrong(path)

    def test_one_that_runs_code(self, tmp_path: Path) -> None:
        path = tmp_path / "bomb.pth"
        torch.save({"body": _Bomb()}, path)
        assert "refused, it holds objects" in self.wrong(path)

    def test_another_network(self, tmp_path: Path) -> None:
        path = tmp_path / "linear.pth"
        torch.save(torch.nn.Linear(2, 2).state_dict(), path)
        assert "not a RetinaFace" in self.wrong(path)
        torch.save([1, 2], path)
        assert "not a state dict" in self.wrong(path)

    def test_a_part_of_the_network(self, tmp_path: Path, weights: Path) -> None:
        state = torch.load(weights, weights_only=True)
        path = tmp_path / "part.pth"
        torch.save({key: value for key, value in state.items() if "fpn" not in key}, path)
        assert "not a complete RetinaFace mobile0.25" in self.wrong(path)
        key = next(iter(state))
        torch.save({**state, key: state[key][:1]}, path)
        assert "size mismatch" in self.wrong(path)

    @pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:1", ""])
    def test_a_device_that_is_not_there(self, weights: Path, device: str) -> None:
        with pytest.raises(DeviceError, match="device"):
            load_detector(weights, device=device)


def face(x: float, y: float, size: float, score: float) -> Face:
    box = np.array([x, y, x + size, y + size * 0.9], np.float32)
    return Face(box, np.float32([[x, y]]) + np.arange(10, dtype=np.float32).reshape(5, 2), score)


def test_limits_keep_the_order() -> None:
    faces = [face(0, 0, 30, 0.9), face(0, 0, 80, 0.8), face(0, 0, 10, 0.7), face(0, 0, 50, 0.6)]
    assert limit_faces(faces) == faces
    assert limit_faces(faces, min_face=30) == [faces[0], faces[1], faces[3]]
    assert limit_faces(faces, max_faces=2) == [faces[1], faces[3]]
    assert limit_faces(faces, max_faces=9) == faces


def test_faces_of_a_reduced_copy_map_to_pixel_centres() -> None:
    # Pixel 0 of a copy of half the size covers pixels 0 and 1: its centre is at 0.5. A third of the height: at 1.
    (mapped,) = rescale_faces([face(0, 0, 10, 0.5)], (320, 120), (640, 360))
    np.testing.assert_allclose(mapped.box, [0.5, 1, 20.5, 28], atol=1e-5)
    np.testing.assert_allclose(mapped.landmarks[0], [0.5, 4], atol=1e-5)
    assert mapped.score == 0.5 and mapped.box.dtype == mapped.landmarks.dtype == np.float32
