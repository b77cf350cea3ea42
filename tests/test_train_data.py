"""Data and losses: alignment, packs, pairs that depend on their number alone, losses in closed form."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from gpenvid.errors import MediaError, OptionsError
from gpenvid.faces.align import TEMPLATE
from gpenvid.gpen.arch import Architecture, Discriminator
from gpenvid.train.data import (
    Numbers,
    Pairs,
    aligned_crop,
    load_faces,
    make_pair,
    pack_photographs,
    pack_sheets,
    photographs_and_clips_in,
    sharpness,
    to_image,
    to_tensor,
)
from gpenvid.train.losses import (
    ContentWeights,
    content_loss,
    differences,
    discriminator_gan_loss,
    feature_matching_loss,
    generator_gan_loss,
    gradient_similarity_loss,
    local_energy_loss,
    multiscale_gradient_loss,
    r1_penalty,
)
from gpenvid.train.options import PrepareOptions
from gpenvid.train.packs import write_pack
from gpenvid.train.sheets import held_out
from gpenvid.types import Face, Float, Image


def portrait(side: int, seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(
        rng.uniform(0, 255, (12, 12, 3)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    return np.clip(coarse, 0, 255).astype(np.uint8)


def landmarks(side: float, shift: float = 0.0) -> Float:
    """Where the landmarks of a picture lie that is its own aligned crop, moved by `shift`."""
    return ((TEMPLATE + 0.5) * (side / 512) - 0.5 + shift).astype(np.float32)


class FixedFinder:
    """Finds the same faces in every picture."""

    def __init__(self, *found: Float) -> None:
        self.found = found

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        box = np.array([0, 0, 1, 1], np.float32)
        return [[Face(box, points, 1.0) for points in self.found] for _ in images]


def write_sheets(root: Path, crop_side: float = 64) -> tuple[str, str]:
    """Two sheets of one tile each; returns the names of the one for training and the one held out."""
    names = [f"sheet_{i}.png" for i in range(100)]
    training = next(name for name in names if not held_out(name))
    held = next(name for name in names if held_out(name))
    tiles = []
    for seed, name in enumerate((training, held)):
        cv2.imwrite(str(root / name), np.pad(portrait(64, seed), ((10, 0), (20, 0), (0, 0)))[..., ::-1])
        face = {"box": [0, 0, 64, 64], "landmarks": landmarks(64).tolist(), "crop_side": crop_side}
        tiles.append({"file": name, "tile": [20, 10, 64, 64], "faces": [face]})
    (root / "index.json").write_text(json.dumps({"schema": 1, "tiles": tiles}))
    return training, held


def test_an_aligned_picture_is_its_own_crop() -> None:
    picture = portrait(128)
    crop = aligned_crop(picture, landmarks(128), 128)
    assert np.abs(crop.astype(int) - picture).max() <= 2
    moved = aligned_crop(np.roll(picture, 5, axis=(0, 1)), landmarks(128, 5.0), 128)
    assert np.abs(moved.astype(int) - picture)[12:-12, 12:-12].max() <= 2


def test_sheets_are_packed_by_their_names(tmp_path: Path) -> None:
    write_sheets(tmp_path)
    for held, seed in ((False, 0), (True, 1)):
        pack = pack_sheets(tmp_path, 64, held=held)
        assert pack.shape == (1, 64, 64, 3)
        assert np.abs(pack[0].astype(int) - portrait(64, seed)).mean() < 0.5
    assert load_faces(tmp_path, 64).shape == (1, 64, 64, 3)


def test_small_faces_stay_out_of_a_pack(tmp_path: Path) -> None:
    write_sheets(tmp_path, crop_side=40)
    assert len(pack_sheets(tmp_path, 64, held=False, least_side=64)) == 0
    with pytest.raises(OptionsError, match=r"\(0, 64, 64, 3\)"):
        load_faces(tmp_path, 64)


def test_packs_keep_their_faces(tmp_path: Path) -> None:
    faces = np.stack([portrait(64, i) for i in range(12)])
    for name in ("faces.npy", "faces.zip"):
        write_pack(tmp_path / name, faces)
    assert np.array_equal(load_faces(tmp_path / "faces.npy", 64), faces)
    loaded = load_faces(tmp_path / "faces.zip", 64)
    assert loaded.shape == faces.shape and np.abs(loaded.astype(int) - faces).mean() < 2
    assert (tmp_path / "faces.zip").stat().st_size < 0.5 * (tmp_path / "faces.npy").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces.npy", "faces.zip"]


def test_what_is_no_pack_is_refused(tmp_path: Path) -> None:
    faces = np.stack([portrait(64)])
    with pytest.raises(OptionsError, match=r"a pack is a \.npy or a \.zip"):
        write_pack(tmp_path / "faces.png", faces)
    with pytest.raises(MediaError, match=r"faces\.zip"):
        write_pack(tmp_path / "absent" / "faces.zip", faces)
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("a.jpg", b"no picture")
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    for name in ("text.zip", "broken.zip", "missing.zip"):
        with pytest.raises(MediaError, match="not a pack"):
            load_faces(tmp_path / name, 64)


def test_photographs_are_filtered_and_counted(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    cv2.imwrite(str(tmp_path / "deep" / "sharp.png"), np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "soft.png"), np.full((80, 80, 3), 90, np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not even by name")
    pack, counts = pack_photographs(tmp_path, FixedFinder(landmarks(64), landmarks(40)), PrepareOptions(size=64))
    assert pack.shape == (1, 64, 64, 3)
    assert dict(counts) == {"kept": 1, "small": 2, "blurred": 1, "unreadable": 1, "faceless": 0}
    _, counts = pack_photographs(tmp_path, FixedFinder(), PrepareOptions(size=64))
    assert counts["faceless"] == 2
    with pytest.raises(MediaError, match="no pictures"):
        pack_photographs(tmp_path / "deep" / "er", FixedFinder(), PrepareOptions())


def test_clips_need_no_photographs_beside_them(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    with pytest.raises(MediaError, match="no pictures"):
        photographs_and_clips_in(tmp_path)
    (tmp_path / "deep" / "clip.MP4").touch()
    assert photographs_and_clips_in(tmp_path) == ([], [tmp_path / "deep" / "clip.MP4"])
    (tmp_path / "photo.jpg").touch()
    assert photographs_and_clips_in(tmp_path) == ([tmp_path / "photo.jpg"], [tmp_path / "deep" / "clip.MP4"])


def test_sharpness_falls_with_blur() -> None:
    picture = portrait(128)
    assert sharpness(cv2.GaussianBlur(picture, (0, 0), 4).astype(np.uint8)) < sharpness(picture)


def test_a_pair_depends_on_its_number_alone() -> None:
    faces = np.stack([portrait(64, seed) for seed in range(3)])
    alone = [make_pair(faces, 5, number) for number in range(12)]
    for workers in (0, 2):
        loader = DataLoader(Pairs(faces, 5), batch_sampler=Numbers(4, 2), num_workers=workers)
        for (bad, good), start in zip(loader, range(4, 12, 2), strict=False):
            for i in range(2):
                assert np.array_equal(to_image(bad[i]), alone[start + i][0])
                assert np.array_equal(to_image(good[i]), alone[start + i][1])
    assert not np.array_equal(make_pair(faces, 6, 0)[0], alone[0][0])


def test_every_pass_shows_every_face_once() -> None:
    faces = np.stack([np.full((16, 16, 3), 60 * (1 + i), np.uint8) for i in range(4)])
    for epoch in range(3):
        means = [make_pair(faces, 0, 4 * epoch + i, gray_share=0)[1].mean() for i in range(4)]
        assert sorted(round(mean / 60) for mean in means) == pytest.approx([1, 2, 3, 4], abs=1)
        assert len({round(mean / 30) for mean in means}) == 4


def test_clean_and_gray_shares() -> None:
    faces = portrait(64)[None]
    for bad, good in (make_pair(faces, 0, n, clean=1, gray_share=1) for n in range(3)):
        assert np.array_equal(bad, good) and np.ptp(good, axis=2).max() == 0
    bad, good = make_pair(faces, 0, 0, clean=0, gray_share=0)
    assert not np.array_equal(bad, good) and np.ptp(good, axis=2).max() > 0


def test_near_faces_are_spoilt_less_and_not_softened_by_the_reduction() -> None:
    faces = np.stack([portrait(64, i) for i in range(2)])

    def harm(near: float, clean: float = 0) -> float:
        pairs = [make_pair(faces, 0, n, clean=clean, gray_share=0, near=near) for n in range(24)]
        assert all(bad.shape == good.shape and bad.dtype == np.uint8 for bad, good in pairs)
        return float(np.mean([np.abs(bad.astype(int) - good).mean() for bad, good in pairs]))

    assert harm(1, clean=1) == 0
    assert 0 < harm(1) < 0.8 * harm(0)


def test_processes_share_the_numbers_without_overlap() -> None:
    taken = []
    for rank in range(2):
        batches = iter(Numbers(8, 2, rank=rank, world=2))
        taken += [number for _ in range(3) for number in next(batches)]
    assert sorted(taken) == list(range(8, 20))


def test_pictures_survive_the_way_to_the_network_and_back() -> None:
    picture = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    tensor = to_tensor(picture)
    assert tensor.shape == (1, 3, 16, 16) and tensor.min() == -1 and tensor.max() == 1
    assert np.array_equal(to_image(tensor), picture)


def test_losses_vanish_at_the_truth_only() -> None:
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    for loss in (multiscale_gradient_loss, local_energy_loss, gradient_similarity_loss):
        assert loss(x, x).item() == pytest.approx(0, abs=2e-4)
        assert loss(torch.nn.functional.avg_pool2d(x, 3, 1, 1), x).item() > 0.01
    weights = ContentWeights()
    assert content_loss(x, x, weights).item() == pytest.approx(0, abs=2e-4)


def test_a_smaller_knee_minds_faint_errors_more() -> None:
    truth = torch.zeros(1, 3, 32, 32)
    only = {"gradient": 0.0, "energy": 0.0, "similarity": 0.0}
    for knee, faint in ((0.1, 0.02**2 / 0.2), (0.01, 0.02 - 0.005)):
        loss = content_loss(truth + 0.02, truth, ContentWeights(**only, knee=knee))
        assert loss.item() == pytest.approx(faint, rel=1e-5)


def test_losses_in_closed_form() -> None:
    zero, half = torch.zeros(1, 3, 32, 32), torch.full((1, 3, 32, 32), 0.5)
    only_l1 = ContentWeights(l1=2.0, gradient=0, energy=0, similarity=0)
    assert content_loss(half, zero, only_l1).item() == pytest.approx(2 * (0.5 - 0.05))
    ramp = torch.arange(32.0).expand(1, 3, 32, 32) * 0.01
    dx, dy = differences(ramp)
    assert torch.allclose(dx, torch.full_like(dx, 0.01), atol=1e-6) and dy.abs().max() == 0
    # Finest scale 0.01, then averaged by two: differences double.
    assert multiscale_gradient_loss(ramp, zero).item() == pytest.approx((0.01 + 0.02 + 0.04) / 6, rel=1e-4)
    logits = torch.zeros(3, 1)
    assert generator_gan_loss(logits).item() == pytest.approx(np.log(2))
    assert discriminator_gan_loss(logits, logits).item() == pytest.approx(2 * np.log(2))
    assert feature_matching_loss([half, zero], [zero, zero]).item() == pytest.approx(0.25)


def test_r1_is_the_squared_gradient() -> None:
    real = torch.rand(2, 3, 4, 4, requires_grad=True)
    logits = (real * 3).sum(dim=(1, 2, 3))[:, None]
    assert r1_penalty(logits, real).item() == pytest.approx(9 * 48)


def test_r1_reaches_the_discriminators_parameters() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(Architecture(size=64, channel_multiplier=1, narrow=0.0625)).double()
    real = torch.rand(2, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    weight = discriminator.convs[0][0].weight
    penalty = r1_penalty(discriminator(real), real)
    (gradient,) = torch.autograd.grad(penalty, weight)
    direction, step = torch.randn_like(weight), 1e-9  # so small that no activation changes its sign
    with torch.no_grad():
        weight += step * direction
    slope = (r1_penalty(discriminator(real), real) - penalty).item() / step
    assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-3)
