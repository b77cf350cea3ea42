"""The commands for those who train and judge models."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import av
import numpy as np
import pytest

from gpenvid import cli
from gpenvid.evaluate import EvalOptions
from gpenvid.train.options import DetectorTraining, PrepareOptions, TrainOptions
from gpenvid.types import Image

SAMPLE = Path(__file__).parents[1] / "samples" / "portrait.jpg"


def picture(seed: int, size: int = 64) -> Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 215, (size // 8, size // 8, 3)).astype(np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["eval"], EvalOptions),
        (["train", "restorer"], TrainOptions),
        (["train", "detector"], DetectorTraining),
        (["train", "prepare"], PrepareOptions),
    ],
)
def test_every_option_has_a_flag(words: list[str], options: type, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    for each in fields(options):
        assert (each.metadata["flags"] or (f"--{each.name.replace('_', '-')}",))[-1] in told


def test_eval_prints_the_table_and_writes_json_and_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, strength in (("truth", 0), ("before", 12), ("better", 4)):
        (tmp_path / folder).mkdir()
        for i in range(2):
            damaged = picture(i).astype(int) + np.random.default_rng(9).integers(-strength, strength + 1, (64, 64, 3))
            rgb = np.clip(damaged, 0, 255).astype(np.uint8)
            av.VideoFrame.from_ndarray(rgb, "rgb24").save(tmp_path / folder / f"{i}.png")
    words = ["--restored", str(tmp_path / "better"), "--truth", str(tmp_path / "truth")]
    words += [
        "--before",
        str(tmp_path / "before"),
        "--json",
        str(tmp_path / "f.json"),
        "--sheet",
        str(tmp_path / "s.png"),
    ]
    assert cli.main(["eval", *words]) == 0
    told = capsys.readouterr().out
    assert told.split("\n")[0].split() == ["figure", "before", "after", "change"]
    means = json.loads((tmp_path / "f.json").read_text())["mean"]
    assert means["after"]["psnr"] > means["before"]["psnr"] + 6
    with av.open(tmp_path / "s.png") as container:
        assert next(container.decode(video=0)).width == 3 * 256


def test_preview_and_a_short_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack, run = tmp_path / "faces.npy", tmp_path / "run"
    np.save(pack, np.stack([picture(i) for i in range(8)]))
    assert cli.main(["train", "preview", "--data", str(pack), "--size", "64", "-o", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    small = ["--size", "64", "--narrow", "0.0625", "--n-mlp", "1", "--style-dim", "16", "--workers", "0"]
    small += ["--steps", "2", "--batch", "2", "--log-every", "1", "--device", "cpu"]
    assert cli.main(["train", "restorer", "--data", str(pack), "-o", str(run), *small]) == 0
    told = capsys.readouterr().out
    assert "after 2 steps" in told
    assert cli.main(["train", "restorer", "--data", str(tmp_path / "absent.npy"), "-o", str(run), *small]) == 1


def test_judge_finds_the_detector_of_the_box_right_about_its_own_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpenvid.evaluate import read_picture
    from gpenvid.faces.detect import load_detector
    from gpenvid.train import detector_eval
    from gpenvid.train.sheets import held_out

    whole = read_picture(SAMPLE)
    largest = max(load_detector(device="cpu").detect([whole])[0], key=lambda face: face.size)
    x, y = (max(int(each) - 160, 0) for each in largest.landmarks[2])
    portrait = whole[y : y + 320, x : x + 320]
    (face,) = load_detector(device="cpu").detect([portrait])[0]
    av.VideoFrame.from_ndarray(portrait, "rgb24").save(tmp_path / "sheet2.png")
    assert held_out("sheet2.png")
    label = {"box": face.box.tolist(), "landmarks": face.landmarks.tolist(), "crop_side": 100.0}
    tile = {"file": "sheet2.png", "tile": [0, 0, *portrait.shape[1::-1]], "faces": [label]}
    (tmp_path / "index.json").write_text(json.dumps({"schema": 1, "tiles": [tile]}))
    monkeypatch.setattr(detector_eval, "faceless_pictures", lambda count, seed: [np.full((64, 64, 3), 90, np.uint8)])
    words = ["train", "judge", "--data", str(tmp_path), "--scenes", "2", "--json", str(tmp_path / "f.json")]
    assert cli.main(words) == 0
    assert "landmark_error" in capsys.readouterr().out
    figures = json.loads((tmp_path / "f.json").read_text())
    assert (figures["sheets"]["faces"], figures["sheets"]["recall"], figures["sheets"]["precision"]) == (1, 1, 1)
    assert figures["sheets"]["landmark_error"] < 0.02
    assert set(figures) == {"sheets", "scenes", "scenes_degraded", "textures"}
    assert figures["textures"] == {"false": 0}

    (tmp_path / "real").mkdir()
    av.VideoFrame.from_ndarray(portrait, "rgb24").save(tmp_path / "real" / "photo.png")
    with av.open(tmp_path / "real" / "clip.mp4", "w") as clip:
        stream = clip.add_stream("libx264", 25, width=320, height=320, options={"crf": "12"})
        for _ in range(detector_eval.EVERY + 1):
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(portrait, "rgb24")))
        clip.mux(stream.encode())
    teacher = Path(__file__).parents[1] / "weights" / "retinaface-lite.pth"
    monkeypatch.setattr(detector_eval, "relabel", lambda mentor, portraits, labels: portraits)
    assert cli.main([*words, "--teacher", str(teacher), "--photographs", str(tmp_path / "real")]) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    agreed = {f"{name}{by}" for name in ("photographs", "clips") for by in ("", "_teacher")}
    assert (
        set(figures) == {"sheets", "scenes", "scenes_degraded", "textures", "sheets_teacher", "scenes_teacher"} | agreed
    )
    for name in agreed:
        counted = figures[name]
        assert (counted["faces"], counted["recall"], counted["precision"]) == (1 + name.startswith("clips"), 1, 1)
        assert counted["landmark_error"] < 0.08
