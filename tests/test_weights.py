"""Weights are found, verified and fetched; every way in which a server can fail is tried on a local one."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpenvid import weights
from gpenvid.errors import WeightsError
from gpenvid.weights import Entry, download, registry

CONTENT = np.random.default_rng(0).bytes(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """A server whose paths say how it misbehaves. asked: (path, Range header) of every request."""

    url: str = ""
    content: bytes = CONTENT
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, wanted = handler.path, handler.headers.get("Range")
        self.asked.append((path, wanted))
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if path == "/redirect":
            handler.send_response(302)
            handler.send_header("Location", f"{self.url}/plain")
            handler.end_headers()
            return
        if path in ("/404", "/503"):
            handler.send_error(int(path[1:]))
            return
        if path == "/page":
            self._send(handler, 200, b"<html>Please log in</html>", {"Content-Type": "text/html; charset=utf-8"})
            return
        if path == "/norange":
            self._send(handler, 200, self.content)
            return
        if start >= len(self.content):
            handler.send_error(416)
            return
        body = self.content[start:]
        if path == "/corrupt":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if path == "/short":
            body = body[:1000]
        headers = {"Content-Range": f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"} if wanted else {}
        if path == "/wrongrange" and wanted:
            headers["Content-Range"] = f"bytes 5-{len(self.content) - 1}/{len(self.content)}"
        cut = {"/cut": 300_000, "/dead": 0}.get(path, len(body))
        if path == "/endless":
            headers["Content-Length"] = ""
            body *= 2
            cut = len(body)
        self._send(handler, 206 if wanted else 200, body, headers, cut=cut)

    @staticmethod
    def _send(
        handler: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        try:
            handler.wfile.write(body[:cut])
        except ConnectionError:
            handler.close_connection = True


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's weights, proxies or settings; returns the cache."""
    for name in ("GPENVID_WEIGHTS", "GPENVID_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("gpenvid.weights.files.shipped", lambda what: tmp_path / "shipped" / what)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return tmp_path / "cache" / "gpenvid" / "weights"


def register(monkeypatch: pytest.MonkeyPatch, *entries: Entry) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", entries)


BIG = Entry(
    name="big",
    kind="restorer",
    filename="big.pth",
    note="not for sale",
    urls=("https://example.org/big.pth",),
    sha256=SHA256,
    bytes=len(CONTENT),
)
UNKNOWN = replace(BIG, name="unknown", filename="unknown.pth", sha256=None, bytes=None)
LITE = Entry(name="lite", kind="restorer", filename="lite.pth", note="free")


def served(site: Site, *paths: str, base: Entry = BIG) -> Entry:
    return replace(base, urls=tuple(site.url + path for path in paths))


def put(folder: Path, filename: str, content: bytes = CONTENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / filename).write_bytes(content)
    return folder / filename


def sums(folder: Path, filename: str, content: bytes = CONTENT) -> None:
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(content).hexdigest()}  {filename}\n")


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(WeightsError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestRegistry:
    def test_names_and_files_are_unique(self) -> None:
        for values in ([e.name for e in weights.entries()], [e.filename for e in weights.entries()]):
            assert len(set(values)) == len(values)

    def test_checksums_and_addresses_are_well_formed(self) -> None:
        for entry in weights.entries():
            assert entry.sha256 is None or (len(entry.sha256) == 64 and int(entry.sha256, 16))
            assert all(url.startswith("https://") for url in entry.urls)
            assert (entry.sha256 is None) == (entry.bytes is None)

    def test_auto_prefers_512_then_size_then_what_ships(self) -> None:
        assert [entry.name for entry in weights.entries("restorer")] == [
            "GPEN-BFR-512",
            "GPEN-BFR-2048",
            "GPEN-BFR-1024",
            "GPEN-BFR-256",
            "gpen-lite",
        ]
        assert [entry.name for entry in weights.entries("detector")] == [
            "retinaface_resnet50",
            "retinaface_mobile0.25",
            "retinaface-lite",
        ]

    def test_the_shipped_detector_has_a_specialist_for_the_second_look(self) -> None:
        assert weights.entry(weights.entry("retinaface-lite").closeup).kind == "closeup"
        assert not weights.entry("retinaface_resnet50").closeup

    def test_unknown_names_are_told_the_known_ones(self) -> None:
        assert refusal(weights.entry, "gpen").startswith("gpen: unknown weights; known are GPEN-BFR-512, ")


class TestSearch:
    def test_folders_in_order(self, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GPENVID_WEIGHTS", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
        assert weights.search_path(tmp_path / "given") == [
            tmp_path / "given",
            tmp_path / "a",
            tmp_path / "b",
            tmp_path / "shipped" / "weights",
            elsewhere,
        ]

    def test_the_first_folder_that_has_the_file_wins(
        self, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register(monkeypatch, BIG)
        monkeypatch.setenv("GPENVID_WEIGHTS", str(tmp_path / "a"))
        assert weights.find("big") is None
        for folder in (elsewhere, tmp_path / "a", tmp_path / "given"):
            path = put(folder, "big.pth")
            assert weights.find("big", weights_dir=tmp_path / "given") == path

    def test_a_relative_cache_is_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert weights.cache_dir() == Path.home() / ".cache" / "gpenvid" / "weights"

    def test_what_ships_lies_beside_or_inside_the_package(self) -> None:
        package = Path(weights.__file__).parents[1]
        for what in ("weights", "samples"):
            assert weights.shipped(what) in (package.parent / what, package / "shipped" / what)


class TestStatus:
    def test_missing_verified_damaged(self, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        register(monkeypatch, BIG)
        assert weights.status("big").state == "missing"
        path = put(elsewhere, "big.pth")
        assert weights.status("big") == weights.Status(entry=BIG, state="verified", path=path, sha256=SHA256)
        path.write_bytes(CONTENT[:-1])
        assert weights.status("big").state == "damaged"

    def test_a_damaged_file_is_told_with_the_remedy(self, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        register(monkeypatch, BIG)
        path = put(elsewhere, "big.pth", b"x")
        got = hashlib.sha256(b"x").hexdigest()
        assert refusal(weights.verify, "big") == (
            f"{path}: sha256 is {got[:12]}, expected {SHA256[:12]}; delete it and run `gpenvid weights fetch big`"
        )

    def test_what_ships_is_known_by_the_sums_beside_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        register(monkeypatch, LITE)
        folder = tmp_path / "shipped" / "weights"
        put(folder, "lite.pth")
        assert weights.status("lite").state == "unverified"
        sums(folder, "lite.pth")
        assert weights.verify("lite").state == "verified"
        sums(folder, "lite.pth", b"other")
        assert refusal(weights.verify, "lite").endswith("; install gpenvid again")

    def test_a_file_is_hashed_once(self, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        register(monkeypatch, BIG)
        hashed: list[Path] = []
        original = weights.files.hash_file
        monkeypatch.setattr(weights.files, "hash_file", lambda path: hashed.append(path) or original(path))
        path = put(elsewhere, "big.pth")
        weights.verify("big")
        weights.verify("big")
        weights.sha256_of(path)
        assert hashed == [path]

    def test_a_broken_lock_is_told(self, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        register(monkeypatch, UNKNOWN)
        put(elsewhere, "unknown.pth")
        put(elsewhere, "weights.lock", b'{"unknown.pth": 3}')
        assert refusal(weights.status, "unknown").startswith(f"{elsewhere / 'weights.lock'}: damaged; delete it")


class TestFetch:
    def fetch(self, monkeypatch: pytest.MonkeyPatch, entry: Entry, folder: Path) -> Path:
        register(monkeypatch, entry)
        path = weights.fetch(entry.name)
        assert path == folder / entry.filename
        assert path.read_bytes() == CONTENT
        assert not path.with_name(path.name + ".part").exists()
        return path

    @pytest.mark.parametrize("path", ["/plain", "/redirect"])
    def test_downloads(self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
        self.fetch(monkeypatch, served(site, path), elsewhere)

    def test_into_the_given_folder_and_only_once(
        self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register(monkeypatch, served(site, "/plain"))
        for _ in range(2):
            assert weights.fetch("big", weights_dir=tmp_path / "given") == tmp_path / "given" / "big.pth"
        assert site.asked == [("/plain", None)]

    def test_says_the_license_once(
        self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(2):
            self.fetch(monkeypatch, served(site, "/plain"), elsewhere)
        assert [record.getMessage() for record in caplog.records] == ["big: not for sale"]

    def test_a_cut_connection_is_resumed(self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fetch(monkeypatch, served(site, "/cut"), elsewhere)
        assert site.asked == [("/cut", None), ("/cut", "bytes=300000-"), ("/cut", "bytes=600000-")]

    @pytest.mark.parametrize("path", ["/plain", "/norange"])
    def test_an_earlier_part_is_resumed_where_the_server_can(
        self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, path: str
    ) -> None:
        put(elsewhere, "big.pth.part", CONTENT[:1000])
        self.fetch(monkeypatch, served(site, path), elsewhere)
        assert site.asked == [(path, "bytes=1000-")]

    def test_a_part_that_is_already_whole_needs_no_network(
        self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(elsewhere, "big.pth.part")
        self.fetch(monkeypatch, served(site, "/plain"), elsewhere)
        assert site.asked == []

    @pytest.mark.parametrize("stale", [b"x" * 1000, CONTENT + b"x"], ids=["different", "longer"])
    def test_a_stale_part_is_thrown_away(
        self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, stale: bytes
    ) -> None:
        put(elsewhere, "big.pth.part", stale)
        self.fetch(monkeypatch, served(site, "/plain"), elsewhere)
        assert site.asked == [("/plain", f"bytes={len(stale)}-"), ("/plain", None)]

    @pytest.mark.parametrize("bad", ["/404", "/503", "/corrupt", "/dead", "/page", "/short", "/endless"])
    def test_the_next_mirror_is_tried(
        self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, bad: str
    ) -> None:
        self.fetch(monkeypatch, served(site, bad, "/plain"), elsewhere)
        assert site.asked[0][0] == bad
        assert site.asked[-1][0] == "/plain"

    @pytest.mark.parametrize(
        ("path", "reason", "requests"),
        [
            ("/404", "404 Not Found", 1),
            ("/503", "503 Service Unavailable", 3),
            ("/dead", "the connection was cut", 3),
            ("/page", "answers with a web page", 1),
            ("/short", "has 1000 bytes, expected 700000", 1),
            ("/endless", "sends more than the 700000 bytes expected", 1),
            ("/corrupt", "sha256 is", 1),
        ],
    )
    def test_when_no_mirror_has_it_the_reason_is_told_and_nothing_stays(
        self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str, requests: int
    ) -> None:
        register(monkeypatch, served(site, path))
        message = refusal(weights.fetch, "big")
        assert message.startswith(f"big: can't be downloaded ({site.url}{path}: {reason}")
        assert message.endswith(f"put the file into {elsewhere} as big.pth")
        assert len(site.asked) == requests
        assert not (elsewhere / "big.pth").exists()

    def test_a_wrong_range_is_refused(self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        register(monkeypatch, served(site, "/wrongrange"))
        put(elsewhere, "big.pth.part", CONTENT[:1000])
        assert "asked for byte 1000, got byte 5" in refusal(weights.fetch, "big")

    @pytest.mark.parametrize(("here", "there", "followed"), [("https", "http", False), ("http", "http", True)])
    def test_redirects_never_leave_https(self, here: str, there: str, followed: bool) -> None:
        request = urllib.request.Request(f"{here}://example.org/a")
        arguments = (request, None, 302, "Found", {}, f"{there}://example.org/b")
        if followed:
            follow = download._NoDowngrade().redirect_request(*arguments)
            assert follow is not None and follow.full_url == "http://example.org/b"
        else:
            with pytest.raises(download._MirrorError, match=r"^redirects to http$"):
                download._NoDowngrade().redirect_request(*arguments)

    def test_nobody_listens(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        register(monkeypatch, replace(BIG, urls=("http://127.0.0.1:9/big.pth",)))
        assert "Connection refused" in refusal(weights.fetch, "big")

    def test_a_damaged_file_is_replaced(self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put(elsewhere, "big.pth", b"damaged")
        self.fetch(monkeypatch, served(site, "/plain"), elsewhere)

    def test_offline_a_damaged_file_stays(self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        register(monkeypatch, served(site, "/plain"))
        put(elsewhere, "big.pth", b"damaged")
        assert "delete it and run" in refusal(weights.fetch, "big", offline=True)
        assert site.asked == []

    def test_whoever_comes_second_waits_for_the_first(
        self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register(monkeypatch, served(site, "/plain"))
        threads = [threading.Thread(target=weights.fetch, args=("big",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert weights.verify("big").state == "verified"
        assert site.asked == [("/plain", None)]

    def test_a_folder_that_cannot_be_made_is_told(
        self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register(monkeypatch, served(site, "/plain"))
        put(tmp_path, "file")
        assert refusal(weights.fetch, "big", weights_dir=tmp_path / "file") == f"{tmp_path / 'file'}: File exists"


class TestLock:
    def test_the_first_download_is_recorded_and_a_change_is_an_error(
        self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        register(monkeypatch, served(site, "/plain", base=UNKNOWN))
        path = weights.fetch("unknown")
        lock = json.loads((elsewhere / "weights.lock").read_text())
        assert lock == {"unknown.pth": {"sha256": SHA256, "source": f"{site.url}/plain"}}
        assert f"unknown.pth: nobody published its sha256; recorded {SHA256[:12]}" in caplog.text
        assert weights.verify("unknown").state == "verified"
        path.write_bytes(CONTENT[::-1])
        assert f"expected {SHA256[:12]}" in refusal(weights.verify, "unknown")

    def test_a_mirror_that_changed_is_refused(
        self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register(monkeypatch, served(site, "/plain", base=UNKNOWN))
        weights.fetch("unknown").unlink()
        site.content = CONTENT[::-1]
        assert f"expected {SHA256[:12]}" in refusal(weights.fetch, "unknown")
        assert not (elsewhere / "unknown.pth").exists()

    def test_a_web_page_is_never_recorded(self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        register(monkeypatch, served(site, "/page", base=UNKNOWN))
        assert "answers with a web page" in refusal(weights.fetch, "unknown")
        assert not (elsewhere / "weights.lock").exists()

    def test_a_file_put_there_by_hand_is_accepted_by_fetch(
        self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register(monkeypatch, served(site, "/plain", base=UNKNOWN))
        path = put(elsewhere, "unknown.pth")
        assert weights.verify("unknown").state == "unverified"
        assert weights.fetch("unknown", offline=True) == path
        assert weights.verify("unknown").state == "verified"
        assert site.asked == []


class TestResolve:
    def test_auto_takes_the_best_verified_and_never_the_network(
        self,
        site: Site,
        tmp_path: Path,
        elsewhere: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        register(monkeypatch, served(site, "/plain"), served(site, "/plain", base=UNKNOWN), LITE)
        message = refusal(weights.resolve, "auto", "restorer")
        assert message.startswith("no restorer in ") and "`gpenvid weights fetch big`" in message
        shipped = tmp_path / "shipped" / "weights"
        lite = put(shipped, "lite.pth")
        sums(shipped, "lite.pth")
        assert weights.resolve("auto", "restorer") == weights.Weights(
            name="lite", path=lite, sha256=SHA256, verified=True
        )
        put(elsewhere, "unknown.pth")
        put(elsewhere, "big.pth", b"damaged")
        assert weights.resolve("auto", "restorer").name == "lite"
        assert "unknown.pth: unverified, passed over" in caplog.text
        assert "big.pth: damaged, passed over" in caplog.text
        put(elsewhere, "big.pth")
        assert weights.resolve("auto", "restorer").name == "big"
        assert site.asked == []

    def test_a_registered_name_is_downloaded_when_absent(
        self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register(monkeypatch, served(site, "/plain"))
        assert weights.resolve("big", "restorer") == weights.Weights(
            name="big", path=elsewhere / "big.pth", sha256=SHA256, verified=True
        )

    @pytest.mark.parametrize("by_environment", [True, False])
    def test_offline_says_what_to_get_from_where_and_where_to_put_it(
        self, site: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool
    ) -> None:
        register(monkeypatch, served(site, "/plain", "/redirect"))
        if by_environment:
            monkeypatch.setenv("GPENVID_OFFLINE", "1")
        offline = None if by_environment else True
        expected = (
            "big: big.pth isn't here; run `gpenvid weights fetch big`, or download "
            f"{site.url}/plain or {site.url}/redirect and put it into {elsewhere} as big.pth"
        )
        assert refusal(weights.resolve, "big", "restorer", offline=offline) == expected
        assert refusal(weights.fetch, "big", offline=offline) == expected
        assert site.asked == []

    def test_a_name_of_another_kind_is_refused(self) -> None:
        assert refusal(weights.resolve, "parsenet", "restorer") == "parsenet: is a parser, not a restorer"

    def test_an_unknown_name_is_told_the_known_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        register(monkeypatch, BIG, LITE)
        assert refusal(weights.resolve, "bigger", "restorer") == (
            "bigger: no such file and no known restorer; known are big, lite"
        )

    def test_files_of_ones_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = put(tmp_path / "mine", "my.pth")
        expected = weights.Weights(name="my", path=path, sha256=SHA256, verified=False)
        assert weights.resolve(path, "restorer") == expected
        assert weights.resolve(str(path), "restorer") == expected
        monkeypatch.setenv("GPENVID_WEIGHTS", str(tmp_path / "mine"))
        assert weights.resolve("my", "restorer") == expected
        assert weights.resolve("my.pth", "restorer") == expected
        assert (
            refusal(weights.resolve, tmp_path / "no.pth", "restorer")
            == f"{tmp_path / 'no.pth'}: No such file or directory"
        )

    def test_a_file_that_bears_a_registered_name_must_be_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register(monkeypatch, BIG)
        path = put(tmp_path, "big.pth")
        assert weights.resolve(path, "restorer") == weights.Weights(name="big", path=path, sha256=SHA256, verified=True)
        path.write_bytes(b"retrained")
        assert refusal(weights.resolve, path, "restorer").endswith("rename it if it is your own")

    def test_an_unverifiable_file_is_used_when_named_but_said(
        self, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        register(monkeypatch, UNKNOWN)
        put(elsewhere, "unknown.pth")
        with caplog.at_level(logging.WARNING):
            assert not weights.resolve("unknown", "restorer").verified
        assert "can't be verified" in caplog.text
