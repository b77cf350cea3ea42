"""gpenvid makes the faces in video better and leaves everything else as it was."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpenvid.enhancer import Enhancer
    from gpenvid.errors import DeviceError, GpenvidError, MediaError, OptionsError, WeightsError
    from gpenvid.faces.detect import Detector, load_detector
    from gpenvid.gpen.restorer import Restorer, load_restorer
    from gpenvid.options import Options
    from gpenvid.report import Report
    from gpenvid.run import enhance, enhance_folder
    from gpenvid.streaming.session import live, live_cameras
    from gpenvid.types import Face, Track

__version__ = "0.1.0"

__all__ = [
    "Detector",
    "DeviceError",
    "Enhancer",
    "Face",
    "GpenvidError",
    "MediaError",
    "Options",
    "OptionsError",
    "Report",
    "Restorer",
    "Track",
    "WeightsError",
    "enhance",
    "enhance_folder",
    "live",
    "live_cameras",
    "load_detector",
    "load_restorer",
]

_HOME = {
    "enhancer": ("Enhancer",),
    "errors": ("DeviceError", "GpenvidError", "MediaError", "OptionsError", "WeightsError"),
    "faces.detect": ("Detector", "load_detector"),
    "gpen.restorer": ("Restorer", "load_restorer"),
    "streaming.session": ("live", "live_cameras"),
    "options": ("Options",),
    "report": ("Report",),
    "run": ("enhance", "enhance_folder"),
    "types": ("Face", "Track"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `gpenvid --help` doesn't wait for PyTorch."""
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"gpenvid.{module}"), name)
    raise AttributeError(f"module 'gpenvid' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
