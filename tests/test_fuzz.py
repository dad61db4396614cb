"""The HTTP surface, fuzzed from its own description: whatever comes, no 500."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gateways import behind, running, settings

from tunepoint.serve.openapi import openapi_document

pytestmark = pytest.mark.no_cover  # what they run, other tests cover
FUZZER = shutil.which("schemathesis", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(FUZZER is None, reason="schemathesis is not installed")
def test_no_request_whatever_it_holds_is_answered_with_500(tmp_path: Path) -> None:
    with behind() as server, running(lambda: settings(tmp_path, server.url, fallback=["spare"])) as gateway:
        fuzzing = subprocess.run(
            [
                *(str(FUZZER), "run", f"{gateway.url}/openapi.json", "--checks", "not_a_server_error"),
                *("--max-examples", "40", "--seed", "1", "--workers", "1", "--no-color"),
            ],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
        )
        assert fuzzing.returncode == 0, fuzzing.stdout[-4_000:]
        assert gateway.application.in_flight == 0
    assert "12 passed" in fuzzing.stdout, fuzzing.stdout[-2_000:]


def test_the_description_names_every_address(tmp_path: Path) -> None:
    with behind() as server, running(lambda: settings(tmp_path, server.url)) as gateway:
        served = {route.path for route in gateway.application.router.routes}  # type: ignore[attr-defined]
    pages = {"/", "/dashboard.js", "/dashboard.css", "/openapi.json"}
    described = {path.replace("{name}", "{name:path}") for path in openapi_document(["triage"])["paths"]}
    assert served - pages == described - {"/v1/chat/completions"}
