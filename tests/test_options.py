"""Options are data: validated once, and the command line can't drift from them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from gpenvid.cli import parser
from gpenvid.cli.flags import chosen
from gpenvid.errors import OptionsError
from gpenvid.options import STAGES, Options


def test_every_option_has_a_flag_and_a_help_text() -> None:
    text = parser()._subparsers._group_actions[0].choices["enhance"].format_help()  # type: ignore[union-attr]
    for options in STAGES.values():
        for each in fields(options):
            flag = (each.metadata["flags"] or (f"--{each.name.replace('_', '-')}",))[-1]
            assert flag in text
            assert each.metadata["help"]


def test_no_two_stages_share_a_name() -> None:
    names = [each.name for options in STAGES.values() for each in fields(options)]
    assert len(names) == len(set(names))


def test_without_words_the_command_gives_the_defaults() -> None:
    assert Options.of(**chosen(parser().parse_args(["enhance", "film.mp4"]), STAGES.values())) == Options()


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (["--start", "1:02.5"], {"start": 62.5}),
        (["--start", "2", "--end", "1:00:00"], {"start": 2.0, "end": 3600.0}),
        (["--alpha", "40"], {"blend": 40.0}),
        (["-c", "libx265", "--crf", "20", "--preset", "slow"], {"codec": "libx265", "crf": 20.0, "preset": "slow"}),
        (["--device", "cuda:0,cuda:1"], {"device": "cuda:0,cuda:1"}),
        (["-e", "tune=film", "-e", "aq-mode=3"], {"encoder_options": ("tune=film", "aq-mode=3")}),
        (["-m", "net.pth", "--batch", "2", "--device", "cpu"], {"model": "net.pth", "batch": 2, "device": "cpu"}),
    ],
)
def test_words_become_options(words: list[str], choices: dict[str, Any]) -> None:
    assert chosen(parser().parse_args(["enhance", "film.mp4", *words]), STAGES.values()) == choices
    Options.of(**choices)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"start": -1}, "--start -1"),
        ({"start": 5, "end": 4}, "--end 4"),
        ({"threshold": 1.5}, "--threshold 1.5"),
        ({"detect_size": 10}, "--detect-size 10"),
        ({"lag": -1}, "--lag -1"),
        ({"batch": -1}, "--batch -1"),
        ({"precision": "int8"}, "--precision int8"),
        ({"device": "cpu,"}, "--device cpu,"),
        ({"device": "cuda:0,auto"}, "--device cuda:0,auto"),
        ({"blend": 101}, "--blend 101"),
        ({"min_face": -3}, "--min-face -3"),
        ({"paste_on": "moon"}, "--paste-on moon"),
        ({"encoder_options": ("tune",)}, "tune"),
        ({"sharpness": 3}, "sharpness: no such option"),
    ],
)
def test_nonsense_is_refused_with_its_value(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        Options.of(**choices)
