"""The weights that gpenvid knows by name: addresses, sizes, checksums, licenses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpenvid.errors import WeightsError

Kind = Literal["restorer", "detector", "parser", "closeup", "discriminator", "recogniser", "judge"]

GPEN_NOTE = "GPEN's weights are published for non-commercial use"
FACEXLIB_NOTE = "published with facexlib (MIT); the data it was trained on has terms of its own"
OWN_NOTE = "trained by this project on synthetic faces, ships with it (Apache-2.0)"

_VIGEN = "https://public-vigen-video.oss-cn-shanghai.aliyuncs.com/robin/models"
_HIRES = "https://www.modelscope.cn/models/iic/cv_gpen_image-portrait-enhancement-hires/resolve/master"
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file of weights. Without urls it ships with the program; bytes and sha256 are None where unknown.

    closeup: of a detector, the entry of what takes the second look at its faces, if there is such a specialist.
    """

    name: str
    kind: Kind
    filename: str
    note: str
    urls: tuple[str, ...] = ()
    bytes: int | None = None
    sha256: str | None = None
    closeup: str = ""

    @property
    def ships(self) -> bool:
        """Whether it comes with the program instead of from the network."""
        return not self.urls


_ENTRIES = (
    Entry(
        name="GPEN-BFR-512",
        kind="restorer",
        filename="GPEN-BFR-512.pth",
        note=GPEN_NOTE,
        urls=(
            "https://huggingface.co/akhaliq/GPEN-BFR-512/resolve/main/GPEN-BFR-512.pth",
            f"{_VIGEN}/GPEN-BFR-512.pth",
        ),
        bytes=284085738,
        sha256="f1002c41add95b0decad69604d80455576f7187dd99ca16bd611bcfd44c10b51",
    ),
    Entry(
        name="GPEN-BFR-2048",
        kind="restorer",
        filename="GPEN-BFR-2048.pth",
        note=GPEN_NOTE,
        urls=(f"{_HIRES}/pytorch_model-2048.pt",),
    ),
    Entry(
        name="GPEN-BFR-1024",
        kind="restorer",
        filename="GPEN-BFR-1024.pth",
        note=GPEN_NOTE,
        urls=(f"{_HIRES}/pytorch_model.pt",),
    ),
    Entry(
        name="GPEN-BFR-256",
        kind="restorer",
        filename="GPEN-BFR-256.pth",
        note=GPEN_NOTE,
        urls=(f"{_VIGEN}/GPEN-BFR-256.pth",),
    ),
    Entry(name="gpen-lite", kind="restorer", filename="gpen-lite.pth", note=OWN_NOTE),
    Entry(
        name="retinaface_resnet50",
        kind="detector",
        filename="detection_Resnet50_Final.pth",
        note=FACEXLIB_NOTE,
        urls=(f"{_FACEXLIB}/v0.1.0/detection_Resnet50_Final.pth",),
        bytes=109497761,
        sha256="6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
    ),
    Entry(
        name="retinaface_mobile0.25",
        kind="detector",
        filename="detection_mobilenet0.25_Final.pth",
        note=FACEXLIB_NOTE,
        urls=(f"{_FACEXLIB}/v0.1.0/detection_mobilenet0.25_Final.pth",),
        bytes=1789735,
        sha256="2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
    ),
    Entry(
        name="retinaface-lite", kind="detector", filename="retinaface-lite.pth", note=OWN_NOTE, closeup="closeup-lite"
    ),
    Entry(name="closeup-lite", kind="closeup", filename="closeup-lite.pth", note=OWN_NOTE),
    Entry(
        name="parsenet",
        kind="parser",
        filename="parsing_parsenet.pth",
        note=FACEXLIB_NOTE,
        urls=(f"{_FACEXLIB}/v0.2.2/parsing_parsenet.pth",),
        bytes=85331193,
        sha256="3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
    ),
    Entry(
        name="arcface",
        kind="recogniser",
        filename="recognition_arcface_ir_se50.pth",
        note=FACEXLIB_NOTE,
        urls=(f"{_FACEXLIB}/v0.1.0/recognition_arcface_ir_se50.pth",),
    ),
    Entry(
        name="alexnet",
        kind="judge",
        filename="alexnet-owt-7be5be79.pth",
        note="published with torchvision (BSD); `gpenvid eval --perceptual` uses it for LPIPS",
        urls=("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",),
    ),
    Entry(
        name="inception",
        kind="judge",
        filename="weights-inception-2015-12-05-6726825d.pth",
        note="published with torch-fidelity (Apache-2.0); `gpenvid eval --perceptual` uses it for FID",
        urls=(
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
        ),
    ),
    Entry(
        name="GPEN-BFR-512-D",
        kind="discriminator",
        filename="GPEN-BFR-512-D.pth",
        note=GPEN_NOTE,
        urls=(f"{_VIGEN}/GPEN-BFR-512-D.pth",),
    ),
    Entry(
        name="GPEN-BFR-256-D",
        kind="discriminator",
        filename="GPEN-BFR-256-D.pth",
        note=GPEN_NOTE,
        urls=(f"{_VIGEN}/GPEN-BFR-256-D.pth",),
    ),
)


def entries(kind: Kind | None = None) -> tuple[Entry, ...]:
    """What is known, of one kind or all; within a kind in the order in which `auto` prefers them."""
    return tuple(known for known in _ENTRIES if kind in (None, known.kind))


def entry(name: str) -> Entry:
    """The entry of that name. Raises WeightsError that lists the names there are."""
    for known in entries():
        if known.name == name:
            return known
    raise WeightsError(f"{name}: unknown weights; known are {', '.join(known.name for known in entries())}")
