"""An RTSP server for tests, GStreamer's. Run by the system's Python: it needs the bindings that Debian packages.

    /usr/bin/python3 rtsp_server.py [--login USER:PASSWORD] [--tls PEM] [--port PORT] MODE:PATH:PIPELINE ...

MODE is `play` or `record`, PIPELINE what `gst-launch-1.0` understands: for play with a payloader `pay0` (sound `pay1`),
for record with a depayloader `depay0` (sound `depay1`). PEM: a certificate and its key, for rtsps. Prints `port N` when
it listens, and ends with its input.
"""

from __future__ import annotations

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)  # before any class of it is derived from


class Recorded(GstRtspServer.RTSPMedia):
    """What a publisher sends, at the times that are written in it.

    By default GStreamer measures times by when packets come, too, and then a machine that stood still for a second ends
    the recording's video.
    """

    def do_setup_rtpbin(self, rtpbin: Gst.Element) -> bool:
        """Times from the packets alone."""
        rtpbin.set_property("buffer-mode", 0)
        return True


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--login", default="")
    parser.add_argument("--tls", default="")
    parser.add_argument("--port", default="0")
    parser.add_argument("mounts", nargs="+")
    arguments = parser.parse_args()
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(arguments.port)
    guarded = bool(arguments.login or arguments.tls)
    if guarded:
        server.set_auth(guard(arguments.login, arguments.tls))
    for mount in arguments.mounts:
        mode, path, pipeline = mount.split(":", 2)
        server.get_mount_points().add_factory(path, factory(mode, pipeline, guarded))
    server.attach(None)
    loop = GLib.MainLoop()
    GLib.io_add_watch(sys.stdin, GLib.IO_HUP, lambda *_: loop.quit())
    print("port", server.get_bound_port(), flush=True)  # noqa: T201
    loop.run()


def factory(mode: str, pipeline: str, guarded: bool) -> GstRtspServer.RTSPMediaFactory:
    """What is at one path."""
    made = GstRtspServer.RTSPMediaFactory()
    made.set_launch(f"( {pipeline} )")
    made.set_shared(True)
    if mode == "record":
        made.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        made.set_latency(0)
        made.set_media_gtype(Recorded)
    if guarded:
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_role("user")
        permissions.add_permission_for_role("user", "media.factory.access", True)
        permissions.add_permission_for_role("user", "media.factory.construct", True)
        made.set_permissions(permissions)
    return made


def guard(login: str, pem: str) -> GstRtspServer.RTSPAuth:
    """Basic authentication of one user, without whom nothing is found, and encryption; each if it is asked for."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    if login:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*login.split(":", 1)), token)
    else:
        auth.set_default_token(token)
    if pem:
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(pem))
    return auth


main()
