"""`gpenvid bench flicker`: what it calls flicker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import BlindDetector, IdentityRestorer, SquareDetector

from gpenvid import cli
from gpenvid.bench import flicker
from gpenvid.errors import OptionsError
from gpenvid.types import Image

Film = Callable[..., Path]


class Flickering(IdentityRestorer):
    """Adds another texture to every face."""

    def restore(self, crops: Image) -> Image:
        noise = np.random.default_rng(sum(self.batches)).normal(0, 12, crops.shape)
        return np.clip(super().restore(crops) + noise, 0, 255).astype(np.uint8)


def test_flow_is_that_of_a_moved_texture_and_only_the_middle_counts() -> None:
    wide = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (140, 140, 3)), (0, 0), 3)
    wide = np.clip(128 + 6 * (wide - wide.mean()), 0, 255).astype(np.uint8)
    flow, visible = flicker.motion(wide[5:133, 5:133], wide[6:134, 3:131])
    assert visible[64, 64] and not visible[0].any() and not visible[:, 0].any()
    np.testing.assert_allclose(np.median(flow[visible], 0), [-2, 1], atol=0.2)


def test_a_filter_lowers_what_a_flickering_restorer_adds_and_the_input_is_judged_alike(film: Film) -> None:
    networks = {"detector": SquareDetector(), "restorer": Flickering()}
    given, bare = flicker.measure(film(), 0, **networks)
    again, steady = flicker.measure(film(), 50, **networks)
    assert given == again and given.faces == bare.faces == steady.faces == 16
    assert bare.deviation > 9 and bare.deviation > given.deviation + 5
    assert steady.deviation < 0.8 * bare.deviation and steady.e_warp < 0.8 * bare.e_warp


def test_the_table_has_three_ways_as_ratios(film: Film) -> None:
    (table,) = flicker.run(str(film()), detector=SquareDetector(), restorer=Flickering())
    assert [row["way"] for row in table.dicts()] == ["input", "--stability 0", "--stability 25"]
    assert table.rows[1][4] == table.rows[1][6] == 1
    assert float(table.rows[2][4]) < 1


def test_a_clip_without_faces_and_a_wrong_benchmark_are_refused(film: Film, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OptionsError, match="no face"):
        flicker.run(str(film(frames=3)), detector=BlindDetector(), restorer=IdentityRestorer())
    assert cli.main(["bench", "media", "--input", "film.mp4"]) == 1
    assert "is for `gpenvid bench flicker`" in capsys.readouterr().err
