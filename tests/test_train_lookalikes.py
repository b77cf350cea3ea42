"""What the detector is taught not to take for a face."""

from collections.abc import Callable

import numpy as np
import pytest

from gpenvid.train.lookalikes import add_badges, add_hands, add_scrambled
from gpenvid.train.scenes import Portrait
from gpenvid.types import Image

SIDE = 96


def numbered() -> Portrait:
    """A portrait all face, whose 12 x 12 blocks of 8 pixels each have a red and a green of their own."""
    block = np.arange(12, dtype=np.uint8).repeat(8)
    picture = np.stack(np.broadcast_arrays(20 * block, 20 * block[:, None], np.uint8(200)), -1)
    box = np.array([[0, 0, SIDE, SIDE]], np.float32)
    return Portrait(picture, box, np.zeros((1, 5, 2), np.float32))


def field(side: int) -> np.ndarray:
    return np.hypot(*np.mgrid[-1 : 1 : side * 1j, -0.5 : 1.5 : side * 1j]).astype(np.float32)


KINDS: dict[str, Callable[[np.random.Generator, Image], None]] = {
    "hands": add_hands,
    "badges": lambda rng, picture: add_badges(rng, picture, field),
    "scrambled": lambda rng, picture: add_scrambled(rng, picture, numbered()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_covers_a_part_of_the_picture_and_repeats(kind: str) -> None:
    shares = []
    for seed in range(20):
        plain = np.full((SIDE, SIDE, 3), 128, np.uint8)
        drawn, again = plain.copy(), plain.copy()
        KINDS[kind](np.random.default_rng(seed), drawn)
        KINDS[kind](np.random.default_rng(seed), again)
        np.testing.assert_array_equal(drawn, again)
        shares.append((drawn != plain).any(-1).mean())
    assert 0 < min(shares) < 0.2
    assert 0.3 < max(shares) < 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(33, 40), (70, 33)])
def test_each_fits_into_small_pictures(kind: str, shape: tuple[int, int]) -> None:
    for seed in range(20):
        KINDS[kind](np.random.default_rng(seed), np.zeros((*shape, 3), np.uint8))


def test_hands_are_mostly_of_skin() -> None:
    """Sleeves may have any colour, nails and creases little else than skin's."""
    skin = 0
    for seed in range(10):
        picture = np.zeros((128, 128, 3), np.uint8)
        add_hands(np.random.default_rng(seed), picture)
        red, green, blue = picture[picture.max(-1) > 40].astype(float).T
        skin += int(((red > green) & (green > blue)).mean() > 0.5)
    assert skin >= 7


def test_badges_are_symmetric_but_for_the_light() -> None:
    symmetric = 0
    for seed in range(30):
        picture = np.zeros((64, 64, 3), np.uint8)
        add_badges(np.random.default_rng(seed), picture, field)
        columns = np.flatnonzero(picture.any((0, 2)))
        badge = (picture[:, columns[0] : columns[-1] + 1] > 0).any(-1)
        symmetric += int((badge == badge[:, ::-1]).mean() > 0.97)
    assert symmetric >= 5, "those pictures that hold but one"


def test_no_part_of_a_scrambled_face_stays_in_its_place() -> None:
    """The blocks are numbered, so each part's place in the face can be read from its colour."""
    seen = 0
    for seed in range(40):
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        add_scrambled(np.random.default_rng(seed), picture, numbered())
        rows, columns = np.flatnonzero(picture.any((1, 2))), np.flatnonzero(picture.any((0, 2)))
        side = len(rows)
        if side < 60 or side != len(columns):
            continue
        middle = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        for y, x in [(0.5, 0.5)] if side % 4 else [(0.375, 0.375), (0.375, 0.625), (0.625, 0.375), (0.625, 0.625)]:
            red, green = middle[int(y * side), int(x * side), :2] / 240
            seen += 1
            assert abs(red - x) > 0.12 or abs(green - y) > 0.12, (seed, x, y, red, green)
    assert seen > 5
