"""Faceless pictures for the detector: numbers draw them, and those that look most like faces are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gpenvid.errors import OptionsError
from gpenvid.train import negatives
from gpenvid.train.detector import Trainer, fresh_network, save_weights, train_detector
from gpenvid.train.negatives import HardNegatives, negative, surest, without_faces
from gpenvid.train.options import DetectorTraining
from gpenvid.train.scenes import Portrait
from gpenvid.types import Image

pytestmark = pytest.mark.usefixtures("one_thread")

BOX = np.array([[40, 30, 88, 94]], np.float32)
POINTS = np.array([[[52, 54], [76, 54], [64, 66], [55, 78], [73, 78]]], np.float32)
PURE = (255, 0, 255)


def portrait() -> Portrait:
    """A grainy picture whose face is of one colour that occurs nowhere else."""
    picture = np.random.default_rng(0).integers(60, 120, (128, 128, 3), np.uint8)
    picture[30:95, 40:89] = PURE
    return Portrait(picture, BOX.copy(), POINTS.copy())


class Bright(torch.nn.Module):
    """Takes bright pictures for faces: its second logit is the mean of the input, its first is 0."""

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean = pictures.mean(dim=(1, 2, 3))[:, None].expand(-1, 2) / 50
        logits = torch.stack([torch.zeros_like(mean), mean - torch.tensor([1.0, 0.0])], -1)
        return torch.zeros(len(mean), 2, 4), logits, torch.zeros(len(mean), 2, 10)


def options(out: Path, **changes: object) -> DetectorTraining:
    small: dict[str, object] = {"size": 64, "batch": 4, "pool": 4, "large": 2, "steps": 40, "refit": 0}
    small |= {"hard": 2, "mine": 6, "mine_every": 2, "rate": 1e-3}
    return DetectorTraining(out=str(out), **{**small, **changes})  # type: ignore[arg-type]


def test_numbers_draw_pictures_of_the_asked_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negatives, "add_scrambled", lambda rng, picture, portrait: None)  # else a face's parts
    drawn = [negative(np.random.default_rng(number), [portrait()], 65) for number in range(40)]
    again = [negative(np.random.default_rng(number), [portrait()], 65) for number in range(40)]
    assert {(picture.shape, picture.dtype.name) for picture in drawn} == {((65, 65, 3), "uint8")}
    assert all(np.array_equal(one, other) for one, other in zip(drawn, again, strict=True))
    assert len({picture.tobytes() for picture in drawn}) == 40
    assert not any((picture == PURE).all(-1).any() for picture in drawn)


def test_some_are_symmetric() -> None:
    drawn = [negative(np.random.default_rng(number), [portrait()], 64) for number in range(60)]
    symmetric = [number for number, p in enumerate(drawn) if np.array_equal(p, p[:, ::-1]) and np.ptp(p)]
    assert symmetric


def test_the_surest_anchor_speaks_for_a_picture() -> None:
    dark, light = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    means = np.array([-(104 + 117 + 123) / 3, 255 - (104 + 117 + 123) / 3])
    np.testing.assert_allclose(surest(Bright(), [dark, light]), 1 / (1 + np.exp(-means / 50)), rtol=1e-5)


def test_the_hardest_of_all_that_were_seen_are_kept() -> None:
    hard = HardNegatives([portrait()], 64, seed=5, kept=4)
    first = hard.mine(Bright(), 10)
    second = hard.mine(Bright(), 20)
    chances = surest(Bright(), [hard.picture(number) for number in range(30)])
    assert hard.seen == 30
    assert hard.numbers == np.argsort(-chances, kind="stable")[:4].tolist()
    assert first == pytest.approx(np.sort(chances[:10])[-4:].mean())
    assert second == pytest.approx(np.sort(chances)[-4:].mean())


def test_what_is_drawn_is_one_of_the_kept_either_way_round_without_a_face() -> None:
    hard = HardNegatives([portrait()], 64, seed=5, kept=2)
    hard.mine(Bright(), 6)
    kept: list[Image] = [hard.picture(number) for number in hard.numbers]
    known = {p.tobytes() for p in kept} | {np.ascontiguousarray(p[:, ::-1]).tobytes() for p in kept}
    scenes = [hard.draw(np.random.default_rng(number)) for number in range(30)]
    assert {scene.picture.tobytes() for scene in scenes} == known
    assert {(len(s.boxes), len(s.landmarks), len(s.counts)) for s in scenes} == {(0, 0, 0)}
    assert [scene.picture.tobytes() for scene in hard.scenes()] == [p.tobytes() for p in kept]
    assert without_faces(kept[0]).boxes.shape == (0, 4)


def test_a_step_holds_as_many_hard_pictures_as_asked(tmp_path: Path) -> None:
    trainer = Trainer(options(tmp_path), [portrait()])
    plain, _ = trainer.batch()
    trainer.hard.mine(Bright(), 6)
    mixed, targets = trainer.batch()
    assert torch.equal(mixed[2:], plain[2:]) and not torch.equal(mixed[0], plain[0])
    assert not (targets.labels[:2] == 1).any()
    trainer.step = 1  # a step of large pictures has none
    assert trainer.batch()[0].shape == (1, 3, 128, 128)


def test_a_resumed_run_remembers_the_hard_pictures(tmp_path: Path) -> None:
    trainer = Trainer(options(tmp_path), [portrait()])
    losses = []
    for step in range(5):
        if step == 3:
            trainer.save()
        losses.append(trainer.train_step()["class"])
    again = Trainer(options(tmp_path), [portrait()])
    assert again.resume()
    assert (again.step, again.hard.seen) == (3, 12)
    assert [again.train_step()["class"] for _ in range(2)] == losses[3:]


def test_a_run_may_start_from_a_detector(tmp_path: Path) -> None:
    torch.manual_seed(3)
    save_weights(fresh_network(), tmp_path / "first.pth")
    trainer = Trainer(options(tmp_path, init=str(tmp_path / "first.pth")), [portrait()])
    expected = torch.load(tmp_path / "first.pth", weights_only=True)
    for network in (trainer.network, trainer.average):
        assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_the_last_fit_looks_for_hard_pictures_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[tuple[int, int]] = []
    from gpenvid.train import detector

    monkeypatch.setattr(detector, "training_portraits", lambda chosen: [portrait()])
    monkeypatch.setattr(
        detector,
        "refit_heads",
        lambda network, scenes, seed: fitted.extend((len(s.picture), len(s.boxes)) for s in scenes),
    )
    train_detector(options(tmp_path, steps=1, refit=1, hard=0))
    assert [size for size, _ in fitted] == [256, *[320] * 6]
    assert not any(faces for _, faces in fitted[1:])


def test_nonsense_is_refused() -> None:
    for wrong in ({"hard": -1}, {"hard": 8, "batch": 8}, {"mine": 0}, {"mine_every": 0}):
        with pytest.raises(OptionsError):
            DetectorTraining(**wrong)  # type: ignore[arg-type]
