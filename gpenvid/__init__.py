"""gpenvid makes the faces in video better and leaves everything else as it was."""

from gpenvid.errors import DeviceError, GpenvidError, MediaError, OptionsError, WeightsError
from gpenvid.types import Face, Track

__version__ = "0.1.0"

__all__ = [
    "DeviceError",
    "Face",
    "GpenvidError",
    "MediaError",
    "OptionsError",
    "Track",
    "WeightsError",
]
