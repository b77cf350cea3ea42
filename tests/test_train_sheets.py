"""Sheets of portraits: the index, the rectangles, and which sheets are held out."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from gpenvid.errors import MediaError
from gpenvid.evaluate import read_picture
from gpenvid.train.sheets import held_out, load_tiles

POINTS = [[3.0, 4.0], [7.0, 4.0], [5.0, 6.0], [3.5, 8.0], [6.5, 8.0]]


def write_index(root: Path, content: object) -> None:
    (root / "index.json").write_text(json.dumps(content))


def test_held_out_is_decided_by_the_name_alone() -> None:
    # sha256 of these names begins with 0x01, 0x1a, 0x2c and 0x3d
    assert held_out("textual_search_1_sex_top_8_matches.jpg")
    assert held_out("flux1_pro_images_with_prompts.jpg")
    assert not held_out("textual_search_1_ethnicity_top_8_matches.jpg")
    assert not held_out("textual_search_1_eye_color_top_8_matches.jpg")


def test_about_one_sheet_in_eight_is_held_out() -> None:
    assert 90 <= sum(held_out(f"sheet_{i}.jpg") for i in range(1000)) <= 160


def test_tiles_carry_rectangles_and_faces(tmp_path: Path) -> None:
    sheet = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), sheet[..., ::-1])
    face = {"box": [1.5, -2.0, 9.0, 10.0], "landmarks": POINTS, "crop_side": 12.5}
    entries = [
        {"file": "a.png", "tile": [4, 2, 10, 12], "faces": [face]},
        {"file": "a.png", "tile": [0, 0, 4, 4], "faces": []},
    ]
    write_index(tmp_path, {"schema": 1, "tiles": entries})

    first, second = load_tiles(tmp_path)

    assert first.sheet == "a.png" and first.rect == (4, 2, 10, 12)
    assert first.faces[0].box.tolist() == [1.5, -2.0, 9.0, 10.0]
    assert first.faces[0].landmarks.tolist() == POINTS
    assert first.faces[0].crop_side == 12.5
    assert second.faces == ()
    np.testing.assert_array_equal(first.cut(read_picture(first.path)), sheet[2:14, 4:14])


@pytest.mark.parametrize(
    "content",
    [
        {"schema": 2, "tiles": []},
        {"schema": 1},
        [],
        {"schema": 1, "tiles": [{"file": "a.png", "tile": [1, 2], "faces": []}]},
    ],
)
def test_a_malformed_index_is_an_error_that_names_it(tmp_path: Path, content: object) -> None:
    write_index(tmp_path, content)
    with pytest.raises(MediaError, match=r"index\.json"):
        load_tiles(tmp_path)


def test_a_missing_index_and_an_unreadable_picture_are_errors(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"index\.json"):
        load_tiles(tmp_path)
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"b\.jpg"):
        read_picture(tmp_path / "b.jpg")
