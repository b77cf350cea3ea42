"""The process that shows the preview window.

It is a program of its own that imports nothing of ours: OpenCV's windows hang in a process in which PyAV is loaded,
too, and some systems give windows to main threads only.

It takes pickled pictures, BGR uint8 (H, W, 3), after a first message with the title and the seconds that showing one
may take. It says what `Child` expects: + when there is a window, ! and why not, . when it shows no more.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import Any

import cv2

_ESCAPE = 27


def main() -> None:
    """Show pictures until there are no more or somebody closes the window."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    title, patience = pickle.load(sys.stdin.buffer)
    try:
        signal.setitimer(signal.ITIMER_REAL, patience)
        cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
        os.write(1, b"+")
        while (picture := _next()) is not None:
            signal.setitimer(signal.ITIMER_REAL, patience)
            cv2.imshow(title, picture)
            if cv2.waitKey(1) & 0xFF in (ord("q"), _ESCAPE):
                break
            if cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1:
                break
        os.write(1, b".")
    except cv2.error as error:
        os.write(1, b"!preview window: can't be shown (" + str(error).strip().splitlines()[0].encode() + b")")
    except OSError:
        return  # nobody listens any more


def _next() -> Any:
    signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        return pickle.load(sys.stdin.buffer)
    except (EOFError, pickle.UnpicklingError):
        return None


if __name__ == "__main__":
    main()
