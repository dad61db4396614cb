from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import write_small

from tunepoint import Result, Task, decide_trials, prepare, read_trials, run
from tunepoint.errors import BudgetReached, StudyError, TaskError, TrialsError
from tunepoint.models.budget import Budget
from tunepoint.study.curve_drawing import nested_subsets
from tunepoint.study.directory import Study, default_folder, open_study
from tunepoint.study.facts import revisions
from tunepoint.study.holdout import MAX_MORE_SEEDS
from tunepoint.study.manifest import Manifest, read_manifest

MANIFEST = {
    "schema": 1,
    "task": "t",
    "created": "2026-11-26T00:00:00+00:00",
    "seed": 0,
    "task_sha256": "t",
    "data_sha256": "d",
    "instruction": "one",
    "labels": {"a": ""},
    "items": {"train": ["1"], "dev": ["2"], "test": ["3"]},
    "sealed_test": None,
    "spent_usd": 0.0,
    "arms": {},
    "machine": {"python": "3.11", "system": "Linux", "processor": "x86_64", "cores": 1},
    "packages": {},
}
FILES = ("report.html", "decision.json", "trials.jsonl", "manifest.json", "measurements.json")


def scores(folder: Path) -> dict[tuple[str, str, str | None], tuple[float, str | None]]:
    return {t.key: (t.score, t.answer) for t in read_trials(folder / "trials.jsonl")}


def test_a_finished_study_has_its_files_and_its_kinds(finished: Result) -> None:
    assert finished.folder is not None
    for name in FILES:
        assert (finished.folder / name).stat().st_size > 0
    document = json.loads((finished.folder / "decision.json").read_text())
    assert document == finished.document
    kinds = {finalist["kind"] for finalist in document["finalists"]}
    assert kinds == {"baseline", "tuned", "cascade"}
    assert len(document["finalists"]) == 5
    assert [s["id"] for s in document["signals"]][:3] == ["P1", "P2", "P3"]
    assert finished.report == finished.folder / "report.html"


def test_decide_on_a_study_s_own_files_gives_its_verdict(finished: Result, small_task: Path) -> None:
    folder = finished.folder
    assert folder is not None
    again = decide_trials(folder / "trials.jsonl", Task.load(small_task), arms=folder / "arms.toml", seed=3)
    for key in ("verdict", "strength", "winner", "finalists", "differences", "break_even", "reversal"):
        assert again.document[key] == finished.document[key], key


def test_the_decision_has_every_field_of_the_format(finished: Result) -> None:
    fields = {
        "schema",
        "task",
        "verdict",
        "strength",
        "winner",
        "prompting_measured",
        "models",
        "finalists",
        "differences",
        "break_even",
        "signals",
        "evidence_needed",
        "selection_optimism",
        "contamination",
        "reversal",
        "tornado",
        "caveats",
        "provenance",
    }
    assert fields <= set(finished.document)
    arm = finished.document["finalists"][0]
    assert {
        "arm",
        "kind",
        "items",
        "score",
        "format_ok",
        "cost_per_query_usd",
        "monthly_usd",
        "horizon_usd",
        "upfront_usd",
        "p50_seconds",
        "p95_seconds",
        "meets_limits",
        "probability_acceptable",
        "probability_best",
        "expected_regret_usd",
    } <= set(arm)
    assert arm["score"]["low"] <= arm["score"]["estimate"] <= arm["score"]["high"]
    for crossing in finished.document["break_even"]:
        assert {"from", "to", "queries_per_month", "payback_days", "probability_never"} <= set(crossing)


def test_the_manifest_records_the_seal_the_seeds_and_the_hashes(finished: Result) -> None:
    assert finished.folder is not None
    manifest = read_manifest(finished.folder)
    assert manifest.sealed_test is not None and manifest.sealed_test.items == len(manifest.items.test)
    assert set(manifest.finalists) == {f["arm"] for f in finished.document["finalists"]}
    assert manifest.seed == 3 and len(manifest.data_sha256) == 64
    tested = {t.item for t in read_trials(finished.folder / "trials.jsonl")}
    assert tested == set(manifest.items.test)
    selected = {t.item for t in read_trials(finished.folder / "dev.jsonl")}
    assert selected == set(manifest.items.dev)
    assert not selected & tested
    trained = next(name for name in manifest.finalists if len(manifest.arms[name].fits) > 1)
    tuned = [t for t in read_trials(finished.folder / "trials.jsonl") if t.arm == trained]
    assert manifest.bought is not None
    bought = [look.bought for look in manifest.bought.looks]
    assert {t.seed for t in tuned} == {str(seed) for seed in range(3 + bought.count("training_seeds"))}
    assert bought[-1] is None and len(bought) <= 1 + MAX_MORE_SEEDS


def test_a_seed_is_bought_only_while_it_is_worth_its_training(finished: Result) -> None:
    assert finished.folder is not None
    bought = read_manifest(finished.folder).bought
    assert bought is not None
    for look in bought.looks:
        offers = {offer.kind: offer for offer in look.worth}
        assert "test_items" not in offers  # all of them are measured: no call is paid for here
        if look.bought == "training_seeds":
            assert offers["training_seeds"].value_usd > offers["training_seeds"].price_usd > 0
        elif look.more_seeds < MAX_MORE_SEEDS:
            assert offers["training_seeds"].value_usd <= offers["training_seeds"].price_usd


def test_the_curve_says_what_more_examples_would_bring(finished: Result) -> None:
    assert finished.folder is not None
    learning = json.loads((finished.folder / "measurements.json").read_text())["learning"]
    sizes = [point["examples"] for point in learning["ahead"]]
    assert sizes[-1] == 4 * sizes[0] and learning["labels"] == 3
    assert all(point["low"] <= point["estimate"] <= point["high"] for point in learning["ahead"])
    assert learning["next"]["low"] <= learning["next"]["estimate"] <= learning["next"]["high"]
    worth = {worth_of_kind["kind"] for worth_of_kind in finished.document["worth"]}
    assert worth == {"test_items", "training_seeds", "training_examples"}


def test_the_learning_curve_has_four_nested_sizes(finished: Result) -> None:
    assert finished.folder is not None
    curve = json.loads((finished.folder / "measurements.json").read_text())["curve"]
    assert len(curve) == 4
    assert all(p["low"] <= p["estimate"] <= p["high"] for p in curve)
    sizes = [p["examples"] for p in curve]
    assert sizes == sorted(sizes)


def test_nested_subsets_are_nested_and_keep_labels(small_task: Path) -> None:
    train = prepare(Task.load(small_task), 0).split.train
    small, large = nested_subsets(train, (0.3, 0.6), np.random.default_rng(0))
    assert {e.id for e in small} < {e.id for e in large}
    assert len({e.target for e in small}) == 3


def test_running_again_measures_nothing_and_says_the_same(finished: Result, small_task: Path) -> None:
    assert finished.folder is not None
    before = (finished.folder / "trials.jsonl").read_bytes()
    again = run(Task.load(small_task), out=finished.folder, seed=3)
    assert (finished.folder / "trials.jsonl").read_bytes() == before
    assert again.document["winner"] == finished.document["winner"]
    assert again.document["finalists"] == finished.document["finalists"]


def test_another_question_is_not_answered_from_old_trials(
    finished: Result, small_task: Path, tmp_path: Path
) -> None:
    task = Task.load(small_task)
    prepared = prepare(task, 3)
    assert finished.folder is not None
    with pytest.raises(StudyError, match="another seed"), open_study(finished.folder, task, prepared, 4):
        pass
    other = task.model_copy(update={"instruction": "something else"})
    with (
        pytest.raises(StudyError, match="another instruction"),
        open_study(finished.folder, other, prepared, 3),
    ):
        pass
    assert default_folder(task, prepared, 3) != default_folder(other, prepared, 3)


def test_two_processes_cannot_hold_one_study(small_task: Path, tmp_path: Path) -> None:
    task = Task.load(small_task)
    prepared = prepare(task, 0)
    with (
        open_study(tmp_path / "s", task, prepared, 0),
        pytest.raises(StudyError, match="another process"),
        open_study(tmp_path / "s", task, prepared, 0),
    ):
        pass
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StudyError, match="cannot be created"),
        open_study(tmp_path / "file", task, prepared, 0),
    ):
        pass


def test_the_sealed_test_opens_once(tmp_path: Path) -> None:
    study = Study(tmp_path, Manifest.model_validate(MANIFEST))
    study.unseal(["a", "b"], 10)
    study.unseal(["a", "b"], 10)
    with pytest.raises(StudyError, match="not opened again for a, c"):
        study.unseal(["a", "c"], 10)


def test_requirements_churn_is_read_from_the_studies_beside(tmp_path: Path) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    base = {**MANIFEST, "created": now}
    for name, changes in (
        ("1", {}),
        ("2", {"instruction": "two"}),
        ("3", {"task": "other"}),
        ("4", {"instruction": "old", "created": "2020-01-01T00:00:00+00:00"}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps({**base, **changes}))
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "manifest.json").write_text("{")
    study = Study(tmp_path / "1", read_manifest(tmp_path / "1"))
    assert revisions(study) == 1


def test_manifests_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study here"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(StudyError, match="not JSON"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema": 99}')
    with pytest.raises(StudyError, match="its schema is 99, this version reads 1"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(StudyError, match="its schema is 'list'"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema": 1, "task": "t"}')
    with pytest.raises(StudyError, match=r"arms, created, data_sha256, .*sealed_test, .* missing"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({**MANIFEST, "seed": "three"}))
    with pytest.raises(StudyError, match="seed is 'three'"):
        read_manifest(tmp_path)


def test_a_folder_with_somebody_s_trials_is_not_written_to(small_task: Path, tmp_path: Path) -> None:
    text = '{"arm": "mine", "item": "1", "score": 1}'
    (tmp_path / "trials.jsonl").write_text(text)
    with pytest.raises(StudyError, match=r"holds trials.jsonl but no manifest.json"):
        run(Task.load(small_task), out=tmp_path)
    assert (tmp_path / "trials.jsonl").read_text() == text


def test_decide_does_not_write_into_a_study(finished: Result, small_task: Path) -> None:
    assert finished.folder is not None
    with pytest.raises(StudyError, match="is a study that was measured here"):
        decide_trials(finished.folder / "trials.jsonl", Task.load(small_task), out=finished.folder)


def test_the_cap_stops_before_the_step_that_would_pass_it() -> None:
    meter = Budget(1.0, 0.01)
    meter.check(100, 500)
    meter.charge_seconds(60)
    with pytest.raises(BudgetReached, match=r"\$0.600000 of \$1.000000.*rest of the study.*\$5"):
        meter.check(50, 500)
    Budget(None, 1.0).check(1e9, 1e9)


def test_a_capped_study_keeps_what_it_has(small_task: Path, tmp_path: Path) -> None:
    task = Task.load(small_task)
    with pytest.raises(BudgetReached, match="higher --max-usd"):
        run(task, out=tmp_path, seed=3, max_usd=2e-5)
    kept = read_trials(tmp_path / "dev.jsonl")
    assert {t.arm for t in kept} >= {"zero-shot"}
    assert "fine-tuned encoder" not in {t.arm for t in kept}


def test_twins_in_given_parts_are_reported_and_left_out(tmp_path: Path) -> None:
    path = write_small(tmp_path, 20)
    lines = (tmp_path / "messages.csv").read_text().splitlines()
    header, body = lines[0], lines[1:]
    (tmp_path / "train.csv").write_text("\n".join([header, *body[::2], *body[1::4]]) + "\n")
    longest = max(body[::2], key=len)
    copied = longest.rstrip('"') + (' ok"' if longest.endswith('"') else " ok")
    (tmp_path / "test.csv").write_text("\n".join([header, *body[3::4], copied]) + "\n")
    text = path.read_text().replace('path = "messages.csv"', 'train = "train.csv"\ntest = "test.csv"')
    path.write_text(text.replace('group = "customer_id"\n', ""))
    contamination = run(Task.load(path), out=tmp_path / "study").document["contamination"]
    assert contamination["test_items_with_near_twin"] >= 1
    assert set(contamination["score_without_them"]) and contamination["verdict_without_them"]


def test_a_killed_study_resumes_without_repeating_trials(
    finished: Result, small_task: Path, tmp_path: Path, with_small_encoder: list[str]
) -> None:
    out = tmp_path / "killed"
    command = [*with_small_encoder, "run", str(small_task), "--out", str(out), "--seed", "3", "--quiet"]
    # Killed when selection has begun, and once more when the test is open.
    for name in ("dev.jsonl", "trials.jsonl"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 200
        while not (out / name).exists() or not (out / name).stat().st_size:
            assert process.poll() is None, "the study ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = (out / "dev.jsonl").read_bytes()
    assert not (out / "decision.json").exists()
    with (out / "trials.jsonl").open("ab") as file:
        file.write(b'{"arm": "zero')
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "trials.jsonl: an unfinished last line of 13 bytes was removed" in done.stderr
    assert (out / "dev.jsonl").read_bytes().startswith(kept)
    assert finished.folder is not None
    assert scores(out) == scores(finished.folder)
    decision = json.loads((out / "decision.json").read_text())
    # Its seconds are others, so its costs are, and draws that come after them: not its means.
    for resumed, uninterrupted in zip(decision["finalists"], finished.document["finalists"], strict=True):
        assert resumed["arm"] == uninterrupted["arm"] and resumed["score"] == pytest.approx(
            uninterrupted["score"], abs=0.03
        )
    assert decision["verdict"] == finished.document["verdict"]
    if decision["strength"] is not None:  # which of two equal arms is cheaper hangs on their seconds
        assert decision["winner"] == finished.document["winner"]


# -- trials of other tools -----------------------------------------------------------------


def test_decide_on_a_studys_own_trials_without_arms_toml(finished: Result, small_task: Path) -> None:
    assert finished.folder is not None
    result = decide_trials(finished.folder / "trials.jsonl", Task.load(small_task))
    assert {f.arm for f in result.decision.finalists} == {f.arm for f in finished.decision.finalists}
    assert result.folder is None and result.report is None
    assert any("guessed" in caveat for caveat in result.document["caveats"])


def test_decide_on_the_second_example(tmp_path: Path) -> None:
    folder = Path(__file__).parents[1] / "examples" / "bring-your-own-trials"
    task = Task.load(folder)
    result = decide_trials(folder / "trials.jsonl", task, arms=folder / "arms.toml", out=tmp_path / "o")
    assert result.report is not None and result.report.exists()
    assert result.document["verdict"] != "undecided"
    (tmp_path / "arms.toml").write_text("[[arm]]\nname = 'x'\nkind = 'prompt'\n")
    with pytest.raises(TrialsError, match=r"no \[\[arm\]\] named"):
        decide_trials(folder / "trials.jsonl", task, arms=tmp_path / "arms.toml")


def test_two_logs_are_compared_where_no_model_writes_numbers(tmp_path: Path) -> None:
    """Numbers as people write them are the same amounts."""
    amounts = [round(7.25 * i + 0.5, 2) for i in range(60)]
    rows = [
        "text,amount",
        *(f"sum of lot {i} {chr(97 + i % 26)},{amount}" for i, amount in enumerate(amounts)),
    ]
    (tmp_path / "sums.csv").write_text("\n".join(rows) + "\n")
    forms = {
        "plain": str,
        "german": lambda v: f"{v:,.2f} EUR".replace(",", "_").replace(".", ",").replace("_", "."),
    }
    for name, form in forms.items():
        lines = [
            {"input": row.split(",")[0], "output": form(v)} for row, v in zip(rows[1:], amounts, strict=True)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    content = {
        "name": "sums",
        "data": {"path": "sums.csv", "input": "text", "target": "amount"},
        "answer": {"kind": "number"},
        "score": {"metric": "numeric"},
        "models": [{"name": f"recorded:{name}.jsonl"} for name in forms],
    }
    result = run(Task.parse(content, folder=tmp_path), out=tmp_path / "study")
    assert {f.arm: f.score.estimate for f in result.decision.finalists} == {"plain": 1.0, "german": 1.0}
    alone = Task.parse({**content, "models": content["models"][:1]}, folder=tmp_path)  # type: ignore[index]
    with pytest.raises(TaskError, match="One log alone has nothing to be compared with"):
        run(alone, out=tmp_path / "other")
