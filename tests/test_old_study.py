"""A study made before the manifest was typed still opens.

`data/old-study` is the small task of conftest.py, run with seed 3 by commit db4a959, together with its
task and examples; report and weights were left out, and the draws of measurements.json thinned.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT

from tunepoint import Task, prepare
from tunepoint.report.html import rebuild_report
from tunepoint.serve.study_arms import study_arms
from tunepoint.study.curve_drawing import curve_points
from tunepoint.study.directory import Study, open_study
from tunepoint.study.manifest import read_manifest
from tunepoint.study.whatif import Scenario, what_if
from tunepoint.trials.scorers import scorer_code

OLD = ROOT / "tests" / "data" / "old-study"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy whose task.json names the folder that the examples are in now."""
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    task = json.loads((folder / "task.json").read_text()) | {"folder": str(folder)}
    (folder / "task.json").write_text(json.dumps(task))
    return folder


def test_its_manifest_is_read_and_written_as_it_was(old: Path) -> None:
    before = json.loads((old / "manifest.json").read_text())
    manifest = read_manifest(old)
    assert manifest.content() == before
    assert manifest.curve == [] and "curve" not in before
    before["of a later version"] = {"kept": [1, 2]}
    before["sealed_test"]["by"] = "somebody"
    (old / "manifest.json").write_text(json.dumps(before))
    study = Study(old, read_manifest(old))
    study.update(spent_usd=0.5)
    assert json.loads((old / "manifest.json").read_text()) == before | {"spent_usd": 0.5}


def test_it_is_the_same_measurement_today(old: Path) -> None:
    task = Task.load(old)
    with open_study(old, task, prepare(task, 3), 3) as study:
        assert study.measured


def test_sizes_of_its_curve_are_read_from_the_names(old: Path) -> None:
    points = curve_points(Study(old, read_manifest(old)))
    curve = json.loads((old / "measurements.json").read_text())["curve"]
    assert [point.examples for point in points] == [row["examples"] for row in curve[:-1]]


def test_it_is_decided_again(old: Path) -> None:
    document = json.loads((old / "decision.json").read_text())
    comparison = what_if(old, Scenario({"traffic.queries_per_month": 1_000_000}))
    assert comparison.before.verdict == document["verdict"]
    assert [f.arm for f in comparison.before.finalists] == [f["arm"] for f in document["finalists"]]
    for finalist, recorded in zip(comparison.before.finalists, document["finalists"], strict=True):
        assert finalist.score.estimate == pytest.approx(recorded["score"]["estimate"])


def test_its_report_is_written_again(old: Path) -> None:
    winner = json.loads((old / "decision.json").read_text())["winner"]
    assert winner in rebuild_report(old).read_text()


@pytest.mark.no_cover  # what it runs, others cover
def test_its_prompt_is_served_without_measuring_anything_again(old: Path) -> None:
    logs = {name: (old / name).read_bytes() for name in ("dev.jsonl", "trials.jsonl")}
    prompt = "few-shot, 3 per label"
    with study_arms(old, [prompt]) as study:
        assert set(study.arms) == {prompt}
        study.arms[prompt].close()
    assert {name: (old / name).read_bytes() for name in logs} == logs


def test_opening_it_runs_no_code_of_its_folder(old: Path) -> None:
    (old / "theirs.py").write_text("raise SystemExit('their code ran')")
    saved = json.loads((old / "task.json").read_text())
    saved["task"]["score"] = {"metric": "theirs:score"}
    (old / "task.json").write_text(json.dumps(saved))
    manifest = json.loads((old / "manifest.json").read_text())
    manifest["task_sha256"] = Task.parse(saved["task"], folder=old).trials_fingerprint()
    manifest["scorer_sha256"] = scorer_code("theirs:score", old)
    (old / "manifest.json").write_text(json.dumps(manifest))
    with study_arms(old, ["few-shot, 3 per label"]) as study:
        study.arms["few-shot, 3 per label"].close()
    what_if(old, Scenario({"traffic.queries_per_month": 1_000_000}))
    assert rebuild_report(old).exists()
