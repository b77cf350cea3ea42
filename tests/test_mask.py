"""ParseNet as a source of paste masks, with random weights: the mechanics, not the taste."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from facexlib.parsing.parsenet import ParseNet
from torch import Tensor

from gpenvid.errors import DeviceError, WeightsError
from gpenvid.faces.align import feather
from gpenvid.faces.mask import CLASSES, FACE_CLASSES, FaceParser, load_parser


class ByColour(torch.nn.Module):
    """Stands in for ParseNet: the class is the red value of the pixel, without any doubt."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(tuple(x.shape))
        red = ((x[:, 0] + 1) * 127.5).round().long()
        return torch.nn.functional.one_hot(red, CLASSES).permute(0, 3, 1, 2) * 50.0, x


def painted(size: int, label: int) -> np.ndarray:
    return np.full((size, size, 3), (label, 0, 0), np.uint8)


@pytest.mark.parametrize("label", range(CLASSES))
def test_face_classes_are_pasted_and_others_not(label: int) -> None:
    (mask,) = FaceParser(ByColour(), device="cpu", size=128).mask(painted(128, label)[None])
    expected = feather(128) if label in FACE_CLASSES else np.zeros((128, 128), np.float32)
    np.testing.assert_allclose(mask, expected, atol=1e-5)


def test_the_edge_is_soft_where_the_face_ends() -> None:
    crop = painted(512, 0)
    crop[:, :256, 0] = 1
    (mask,) = FaceParser(ByColour(), device="cpu").mask(crop[None])
    row = mask[256]
    assert row[200] > 0.99 and row[312] < 0.01
    assert row[255:257].mean() == pytest.approx(0.5, abs=1e-3)
    assert (np.diff(row[200:312]) <= 0).all() and np.abs(np.diff(row[150:])).max() < 0.026


def test_batches_are_split_and_every_size_is_served() -> None:
    network = ByColour()
    crops = np.stack([painted(128, label) for label in (1, 0, 13, 14, 2)])
    masks = FaceParser(network, device="cpu", batch=2, size=256).mask(crops)
    assert network.seen == [(2, 3, 256, 256), (2, 3, 256, 256), (1, 3, 256, 256)]
    assert masks.shape == (5, 128, 128) and masks.dtype == np.float32
    assert [bool(mask.max() > 1e-6) for mask in masks] == [True, False, True, False, True]
    np.testing.assert_allclose(masks[0], feather(128), atol=1e-5)


def test_no_crops_no_masks() -> None:
    assert FaceParser(ByColour(), device="cpu").mask(np.zeros((0, 64, 64, 3), np.uint8)).shape == (0, 64, 64)


@pytest.mark.parametrize(
    "crops", [np.zeros((64, 64, 3), np.uint8), np.zeros((1, 64, 32, 3), np.uint8), np.zeros((1, 64, 64, 3), np.float32)]
)
def test_other_shapes_are_refused(crops: np.ndarray) -> None:
    with pytest.raises(ValueError, match="crops must be uint8"):
        FaceParser(ByColour(), device="cpu").mask(crops)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "parsenet.pth"
    torch.save(ParseNet(in_size=512, out_size=512, parsing_ch=CLASSES).state_dict(), path)
    return path


def test_weights_load_and_give_the_network_facexlib_has(weights: Path) -> None:
    crop = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    network = load_parser(weights, "cpu")._network
    (mask,) = FaceParser(network, device="cpu", size=64).mask(crop[None])
    reference = ParseNet(in_size=512, out_size=512, parsing_ch=CLASSES).eval()
    reference.load_state_dict(torch.load(weights, weights_only=True))
    with torch.inference_mode():
        x = torch.from_numpy(crop).permute(2, 0, 1)[None] / 127.5 - 1
        share = reference(x)[0].softmax(1)[0, list(FACE_CLASSES)].sum(0).numpy()
    soft = cv2.GaussianBlur(share, (0, 0), 2, borderType=cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(mask, np.minimum(soft, feather(64)), atol=1e-4)
    assert 0.1 < mask[24:40, 24:40].mean() < 1


def test_wrong_weights_are_refused_in_one_line(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("GPENVID_WEIGHTS", raising=False)
    path = tmp_path / "wrong.pth"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(WeightsError, match=r"^wrong.pth: not the state dict of facexlib's ParseNet$"):
        load_parser(path, "cpu")
    path.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"wrong.pth: truncated or not a PyTorch checkpoint$"):
        load_parser(path, "cpu")
    with pytest.raises(WeightsError, match=r"(?i)no such file"):
        load_parser(tmp_path / "none.pth", "cpu")
    with pytest.raises(WeightsError, match=r"parsing_parsenet\.pth"):
        load_parser(device="cpu", weights_dir=tmp_path, offline=True)


def test_a_device_that_is_not_there(weights: Path) -> None:
    with pytest.raises(DeviceError, match="tpu"):
        load_parser(weights, "tpu")
