"""LPIPS, identity and FID: what they compute, what they need, and what is said where that is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gpenvid.errors import OptionsError, WeightsError
from gpenvid.evaluate import Sample, evaluate
from gpenvid.perceptual import ARCFACE_TEMPLATE, Fid, Identity, Inception, Lpips, Perceptual, load_perceptual
from gpenvid.types import Face, Image


def noise(seed: int, side: int = 112) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which weights are found, and no other."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("GPENVID_WEIGHTS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


class Finder:
    """Sees a face that lies as ArcFace's template does, in every picture that isn't black."""

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        face = Face(np.array([20, 20, 90, 110], np.float32), ARCFACE_TEMPLATE, 1.0)
        return [[face] if image.any() else [] for image in images]


class Recogniser(nn.Module):
    """In the place of ArcFace's network: the mean of each channel, times a weight."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        assert options == {"num_layers": 50, "drop_ratio": 0.6, "mode": "ir_se"}
        self.gain = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (3, 112, 112)
        return x.mean((2, 3)) * self.gain


def test_identity_is_the_cosine_of_two_aligned_crops(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import facexlib.recognition.arcface_arch

    monkeypatch.setattr(facexlib.recognition.arcface_arch, "Backbone", Recogniser)
    torch.save({"gain": torch.tensor([1.0, 1.0, 0.0])}, weights / "recognition_arcface_ir_se50.pth")
    identity = Identity(Finder())
    red, blue = (np.full((112, 112, 3), 127.5, np.float32) for _ in range(2))
    red[..., 0], blue[..., 2] = 255, 255
    # The network sees BGR, and this one doesn't look at its third channel: red is what it can't see.
    green = np.full((112, 112, 3), 128, np.uint8)
    green[..., 1] = 255
    assert identity(blue.astype(np.uint8), green) == pytest.approx(0, abs=0.02)
    assert identity(green, green) == pytest.approx(1)
    changed = green.copy()
    changed[..., 0] = 9
    assert identity(changed, green) == pytest.approx(1)
    assert np.isnan(identity(green, np.zeros_like(green)))


def test_weights_of_another_network_are_refused(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import facexlib.recognition.arcface_arch

    monkeypatch.setattr(facexlib.recognition.arcface_arch, "Backbone", Recogniser)
    torch.save({"other": torch.zeros(1)}, weights / "recognition_arcface_ir_se50.pth")
    with pytest.raises(WeightsError, match="arcface: weights of another network"):
        Identity(Finder())


def test_lpips_of_equal_pictures_is_nothing(weights: Path) -> None:
    pytest.importorskip("lpips")
    from torchvision.models import alexnet

    torch.manual_seed(0)
    trunk = {key: value for key, value in alexnet().state_dict().items() if key.startswith("features.")}
    torch.save(trunk, weights / "alexnet-owt-7be5be79.pth")
    lpips = Lpips()
    assert torch.equal(lpips.network.net.state_dict()["slice5.10.weight"], trunk["features.10.weight"])
    picture, other = noise(0, 64), noise(1, 64)
    nearer = (0.1 * other + 0.9 * picture).astype(np.uint8)
    assert lpips(picture, picture) == 0
    assert lpips(other, picture) > lpips(nearer, picture) > 0
    assert np.isnan(lpips(picture[:31], picture[:31]))
    torch.save({}, weights / "alexnet-owt-7be5be79.pth")
    with pytest.raises(WeightsError, match="empty state dict"):
        Lpips()


def test_fid_of_two_shifted_sets_is_the_square_of_the_shift() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    pytest.importorskip("torch_fidelity")

    def features(picture: Image) -> Tensor:
        return torch.cat([torch.from_numpy(picture[0, :4, 0].astype(np.float32)), torch.zeros(2044)])[None]

    source = SimpleNamespace(metric=fid.FrechetInceptionDistance, features=features, truth=features)
    figure = Fid(source)  # type: ignore[arg-type]
    for seed in range(20):
        truth = noise(seed, 8) // 2
        figure.add(truth + np.uint8(3), truth)
        if not seed:
            assert np.isnan(figure.value())
    assert figure.value() == pytest.approx(4 * 3**2, rel=1e-3)


def test_the_truth_is_looked_at_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    class Network:
        def __init__(self, *options: object) -> None:
            assert options == (
                "inception-v3-compat",
                ["2048"],
                str(weights / "weights-inception-2015-12-05-6726825d.pth"),
            )

        def __call__(self, pixels: Tensor) -> Tensor:
            seen.append(tuple(pixels.shape))
            return torch.zeros(1, 2048)

    torch.save({}, weights / "weights-inception-2015-12-05-6726825d.pth")
    package = SimpleNamespace(NoTrainInceptionV3=Network, FrechetInceptionDistance=None)
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", package)
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace())
    inception, truth = Inception(), noise(0)
    for _ in range(2):
        inception.truth(truth)
        inception.features(noise(1))
    assert seen == [(1, 3, 112, 112)] * 3


def test_what_is_missing_is_said(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    loaded = load_perceptual(None)
    assert not loaded.pairs and not loaded.sets
    assert loaded.missing["lpips"] == "needs lpips; pip install 'gpenvid[eval]'"
    assert loaded.missing["fid"] == "needs torchmetrics.image.fid; pip install 'gpenvid[eval]'"
    assert loaded.missing["identity"] == "needs a detector"
    assert "run `gpenvid weights fetch arcface`" in load_perceptual(Finder()).missing["identity"]
    with pytest.raises(OptionsError):
        Lpips()


class Count:
    """A figure of sets: how many pictures it saw."""

    def __init__(self) -> None:
        self.seen = 0

    def add(self, image: Image, truth: Image) -> None:
        self.seen += 1

    def value(self) -> float:
        return float(self.seen)


def test_they_join_the_other_figures() -> None:
    perceptual = Perceptual({"first": lambda image, truth: float(image[0, 0, 0])}, {"count": Count})
    pictures = [noise(value, 16) for value in (10, 20, 30)]
    for picture, value in zip(pictures, (10, 20, 30), strict=True):
        picture[0, 0, 0] = value
    evaluation = evaluate([Sample("a", *pictures), Sample("b", pictures[1], pictures[1])], perceptual=perceptual)
    assert evaluation.after["a"]["first"] == 10 and evaluation.before["a"]["first"] == 30
    assert evaluation.sets_after == {"count": 2} and evaluation.sets_before == {"count": 1}
    assert evaluation.table()[-2:] == [("first", "30", "15", "-15"), ("count", "1", "2", "+1")]
    alone = evaluate([Sample("b", pictures[1], pictures[1])], perceptual=perceptual)
    assert alone.table()[-1] == ("count", "1") and not alone.sets_before
