"""The second look: every face that was found is looked at once more, close, upright and in the mirror."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from gpenvid.faces.closeup import LENGTH, PADDING, SAY, SIDE, SURE, believed, close_up, landmarks_of
from gpenvid.faces.detect import SecondLook, load_detector, rescale_faces
from gpenvid.types import Face, Image

SAMPLE = Path(__file__).parent.parent / "samples" / "portrait.jpg"

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255]])
"""Of the dots that mark left eye, right eye, nose, left and right mouth corner."""

SHAPE = np.array([[-16.0, -12], [16, -12], [0, 4], [-12, 20], [12, 20]])


def dotted(
    places: Sequence[tuple[float, float, float]], size: tuple[int, int] = (320, 240)
) -> tuple[Image, list[Face]]:
    """A picture with faces of five dots, at x, y and turned by so many degrees, and where they are."""
    picture = np.zeros((240, 320, 3), np.uint8)
    faces = []
    for x, y, turn in places:
        angle = math.radians(turn)
        points = SHAPE @ np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) + (x, y)
        for point, colour in zip(points, COLOURS, strict=True):
            where = tuple(round(float(each) * 16) for each in point)
            cv2.circle(picture, where, 5 * 16, colour.tolist(), -1, cv2.LINE_AA, 4)
        faces.append(Face(np.array([x - 40, y - 40, x + 40, y + 40], np.float32), points.astype(np.float32), 0.7))
    return picture, faces


class Dots:
    """Finds dots: in close-ups exactly, but for a bias; in other pictures what it was told it would."""

    def __init__(self, told: list[Face], *, bias: float = 0.0, score: float = 0.9) -> None:
        self.told, self.bias, self.score, self.seen = told, bias, score, 0

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        self.seen += len(images)
        return [self._close(image) if image.shape == (SIDE, SIDE, 3) else self.told for image in images]

    def _close(self, image: Image) -> list[Face]:
        rows, columns = np.mgrid[:SIDE, :SIDE]
        near = (abs(rows - SIDE / 2) < LENGTH / 2) & (abs(columns - SIDE / 2) < LENGTH / 2)
        points = []
        for colour in COLOURS:
            weight = np.clip(1 - np.abs(image - colour).max(2) / 128, 0, 1) * near
            if weight.sum() < 20:
                return []
            points.append([(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()])
        if points[0][0] > points[1][0]:  # in a mirror what is seen on the left is called left
            points = [points[i] for i in (1, 0, 2, 4, 3)]
        box = np.array([24, 24, SIDE - 25, SIDE - 25], np.float32)
        return [Face(box, (np.array(points) + np.array([self.bias, 0])).astype(np.float32), self.score)]


def slipped(faces: list[Face]) -> list[Face]:
    """The same faces, their landmarks off by some pixels."""
    slip = np.float32([[4, -3], [-3, 2], [5, 5], [-4, 0], [2, -5]])
    return [Face(face.box, face.landmarks + slip, face.score) for face in faces]


class TestCloseUp:
    @pytest.mark.parametrize("turn", [0.0, 35, -60, 170])
    def test_a_face_is_of_one_size_upright_and_in_the_middle(self, turn: float) -> None:
        picture, (face,) = dotted([(150, 110, turn)])
        matrix = close_up(picture, face).matrix
        points = face.landmarks @ matrix[:, :2].T + matrix[:, 2]
        scale = LENGTH / face.size
        np.testing.assert_allclose(points, SHAPE * scale + (SIDE - 1) / 2, atol=1e-3)

    def test_it_shows_what_is_there(self) -> None:
        picture, (face,) = dotted([(150.25, 110.5, 20)])
        view = close_up(picture, face)
        (found,) = Dots([]).detect([view.picture])[0]
        expected = face.landmarks @ view.matrix[:, :2].T + view.matrix[:, 2]
        np.testing.assert_allclose(found.landmarks, expected, atol=0.5)

    def test_beyond_the_picture_there_is_nothing(self) -> None:
        face = Face(
            np.float32([-60, -60, 40, 40]), np.float32([[-20, -20], [10, -20], [0, 0], [-15, 20], [8, 20]]), 0.9
        )
        view = close_up(np.full((50, 50, 3), 250, np.uint8), face).picture
        np.testing.assert_array_equal(view[:60, :60], np.broadcast_to(PADDING, (60, 60, 3)))
        assert (view[120:170, 120:170] == 250).all()
        away = Face(face.box + 500, face.landmarks + 500, 0.9)
        assert (close_up(np.full((50, 50, 3), 250, np.uint8), away).picture == PADDING).all()

    def test_landmarks_in_one_place_leave_it_as_it_lies(self) -> None:
        face = Face(np.float32([10, 10, 50, 60]), np.full((5, 2), 30, np.float32), 0.9)
        matrix = close_up(np.zeros((80, 80, 3), np.uint8), face).matrix
        np.testing.assert_allclose(matrix[:, :2], np.eye(2) * LENGTH / face.size)


class TestSecondLook:
    def test_landmarks_are_those_of_the_close_up(self) -> None:
        picture, truth = dotted([(70, 80, 0), (200.5, 120, 30), (260, 60, -75)])
        found = SecondLook(Dots(slipped(truth)), 0.5).detect([picture])[0]
        for face, true in zip(found, truth, strict=True):
            np.testing.assert_array_equal(face.box, true.box)
            np.testing.assert_allclose(face.landmarks, true.landmarks, atol=0.3)

    def test_a_specialist_says_where_and_the_detector_how_surely(self) -> None:
        picture, truth = dotted([(70, 80, 0), (200, 120, 30)])
        first, close = Dots(slipped(truth), bias=6.0, score=0.9), Dots([], score=0.05)
        found = SecondLook(first, 0.5, close).detect([picture])[0]
        alone = SecondLook(Dots(truth, score=0.9), 0.5).detect([picture])[0]
        assert (first.seen, close.seen) == (1 + 2, 4)
        for face, true, same in zip(found, truth, alone, strict=True):
            np.testing.assert_allclose(face.landmarks, true.landmarks, atol=0.3)
            assert face.score == same.score

    def test_what_is_wrong_in_the_mirror_too_falls_out(self) -> None:
        picture, truth = dotted([(150, 110, 0)])
        (face,) = SecondLook(Dots(truth, bias=6.0), 0.5).detect([picture])[0]
        np.testing.assert_allclose(face.landmarks, truth[0].landmarks, atol=0.3)

    @pytest.mark.parametrize(("first", "again"), [(0.3, 0.9), (0.9, 0.3), (0.6, 0.5), (0.7, 0.9999), (0.94, 1e-5)])
    def test_scores_add_up_as_evidence_does(self, first: float, again: float) -> None:
        def odds(score: float) -> float:
            return math.log(score / (1 - score))

        picture, (face,) = dotted([(150, 110, 0)])
        told = Face(face.box, face.landmarks, first)
        (found,) = SecondLook(Dots([told], score=again), 0.01).detect([picture])[0]
        assert odds(found.score) == pytest.approx(odds(first) + max(-SAY, min(odds(again), SAY)), abs=1e-6)

    def test_what_is_sure_is_not_asked_again(self) -> None:
        picture, (face,) = dotted([(150, 110, 0)])
        detector = Dots([Face(face.box, face.landmarks, SURE)], score=0.05)
        (found,) = SecondLook(detector, 0.5).detect([picture])[0]
        assert found.score == SURE
        assert detector.seen == 1 + 2

    def test_where_the_landmarks_are_is_asked_only_of_faces(self) -> None:
        picture, truth = dotted([(70, 80, 0), (200, 120, 0)])
        detector = Dots([Face(face.box, face.landmarks, score) for face, score in zip(truth, (0.2, 0.6), strict=True)])
        detector.score = 0.5
        assert len(SecondLook(detector, 0.5).detect([picture])[0]) == 1
        assert detector.seen == 1 + 2 + 1

    def test_what_cannot_be_found_again_is_worth_little_and_stays_where_it_was(self) -> None:
        _, (face,) = dotted([(150, 110, 0)])
        nothing = np.zeros((240, 320, 3), np.uint8)
        (doubtful,) = SecondLook(Dots([face]), 0.01).detect([nothing])[0]
        assert doubtful.score == pytest.approx(1 / (1 + math.exp(SAY) * 0.3 / 0.7))
        np.testing.assert_array_equal(doubtful.landmarks, face.landmarks)
        assert SecondLook(Dots([face]), 0.5).detect([nothing]) == [[]]

    def test_a_neighbour_in_the_close_up_is_another_face(self) -> None:
        picture, (face,) = dotted([(150, 110, 0)])
        aside = Face(np.float32([0, 0, 60, 60]), np.zeros((5, 2), np.float32), 0.99)
        assert believed(face, [aside]) == believed(face, [])
        np.testing.assert_array_equal(
            landmarks_of(face, close_up(picture, face).matrix, [aside], [aside]), face.landmarks
        )

    def test_best_first_in_every_picture_however_many(self) -> None:
        picture, truth = dotted([(x, y, 0) for y in (40, 120, 200) for x in (45, 125, 205, 285)])
        told = [Face(face.box, face.landmarks, 0.5 + 0.03 * i) for i, face in enumerate(truth)]
        detector = Dots(told)
        found = SecondLook(detector, 0.5).detect([picture] * 5)
        for faces in found:
            np.testing.assert_array_equal([face.box for face in faces], [face.box for face in told[::-1]])
        assert detector.seen == 5 + 5 * 12 * 2

    def test_no_picture_and_no_face(self) -> None:
        assert SecondLook(Dots([])).detect([]) == []
        assert SecondLook(Dots([])).detect([np.zeros((4, 4), np.uint8)]) == [[]]


@pytest.mark.parametrize("turn", [0, 25])
def test_a_small_face_is_found_more_exactly(turn: int) -> None:
    """The landmarks of a face of 40 pixels come nearer to those of the same face at full size."""
    picture = cv2.cvtColor(cv2.imread(str(SAMPLE)), cv2.COLOR_BGR2RGB)
    height, width = picture.shape[:2]
    rotation = cv2.getRotationMatrix2D((width / 2, height / 2), turn, 1.0)
    picture = np.asarray(cv2.warpAffine(picture, rotation, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    true = load_detector(device="cpu", threshold=0.6).detect([picture])[0][0]
    factor = 40 / true.size
    small = np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)
    errors = []
    for second_look in (False, True):
        found = load_detector(device="cpu", threshold=0.6, second_look=second_look).detect([small])[0][:1]
        (face,) = rescale_faces(found, (small.shape[1], small.shape[0]), (width, height))
        errors.append(float(np.linalg.norm(face.landmarks - true.landmarks, axis=1).mean()))
    assert errors[1] < 0.8 * errors[0]
