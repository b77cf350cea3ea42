"""gpenvid makes the faces in video better and leaves everything else as it was."""

from gpenvid.enhancer import Enhancer
from gpenvid.errors import DeviceError, GpenvidError, MediaError, OptionsError, WeightsError
from gpenvid.faces.detect import Detector, load_detector
from gpenvid.gpen.restorer import Restorer, load_restorer
from gpenvid.options import Options
from gpenvid.report import Report
from gpenvid.run import enhance, enhance_folder
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
    "load_detector",
    "load_restorer",
]
