"""Pictures that come in another size or format than the session's are made to fit it."""

from __future__ import annotations

from itertools import pairwise

import av
from av.filter import Graph

from gpenvid.media.pixels import get_tags, set_tags
from gpenvid.media.sinks import LiveStreams


class Fit:
    """Gives every picture the size and format of the session: scaled, its shape kept, with black beside it.

    `fitted` counts the pictures that needed it.
    """

    def __init__(self, streams: LiveStreams) -> None:
        self.fitted = 0
        self._wanted = streams.width, streams.height, streams.pix_fmt
        self._graph: Graph | None = None
        self._from: tuple[int, int, str] | None = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The picture itself if it fits already; else a new one with the same times and tags."""
        given = frame.width, frame.height, frame.format.name
        if given == self._wanted:
            return frame
        self.fitted += 1
        if self._graph is None or given != self._from:
            self._graph, self._from = self._build(frame), given
        self._graph.push(frame)
        fitted = self._graph.pull()
        assert isinstance(fitted, av.VideoFrame)
        fitted.pts, fitted.time_base = frame.pts, frame.time_base
        set_tags(fitted, get_tags(frame))
        return fitted

    def _build(self, frame: av.VideoFrame) -> Graph:
        width, height, pix_fmt = self._wanted
        graph = Graph()
        steps = [
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
            graph.add("scale", f"{width}:{height}:force_original_aspect_ratio=decrease"),
            graph.add("format", pix_fmt),
            graph.add("pad", f"{width}:{height}:-1:-1"),
            graph.add("buffersink"),
        ]
        for first, second in pairwise(steps):
            first.link_to(second)
        graph.configure()
        return graph
