"""What can be named as a live source and as its output, for those who ask for help."""

INPUTS = """\
sources:
  rtsp://, rtsps://           a camera or server (--rtsp-transport; --listen waits for one that pushes)
  rtmp://, rtmps://           the same for RTMP
  http://, https://           HLS, MJPEG, MPEG-TS
  udp://, rtp://, file.sdp    MPEG-TS or RTP that is sent to this machine
  webcam:0, /dev/video0       a webcam (--size, --rate, --camera-format)
  x11grab::0.0                a screen (--size, --rate)
  -                           standard input
  file.mkv                    a file, at its own pace
"""

OUTPUTS = """\
outputs (-o, may be repeated):
  rtsp://host/path            publish to an RTSP server (also rtsps://)
  rtmp://host/app/key         publish to an RTMP server (also rtmps://)
  whip+https://host/path      publish by WebRTC; a bearer token goes before the host: whip+https://TOKEN@host/path
  udp://host:port             MPEG-TS (also tcp://, srt://, rtp://)
  folder/live.m3u8            HLS
  folder/                     rolling recordings; or a pattern such as folder/%Y-%m-%d/%H%M%S.mkv
  file.mkv                    one file (.mkv, .mp4, .mov, .ts)
  -                           standard output, see --format
  camera: or camera:/dev/video9   a virtual camera
  preview:                    a window
"""


def is_live(source: str) -> bool:
    """Whether this names a live source rather than a file."""
    return source == "-" or "://" in source or source.startswith(("/dev/video", "webcam:", "x11grab:"))
