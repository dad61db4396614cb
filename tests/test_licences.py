"""Who wrote an example, and whether it may be trained on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tunepoint import Example, Task, prepare
from tunepoint.arms.catalog import candidates
from tunepoint.arms.causal.export import export_examples
from tunepoint.arms.encoder.classifier import FineTuned, Probe
from tunepoint.arms.encoder.mixtures import TunedWithRetrieval
from tunepoint.cli.app import app
from tunepoint.data.licences import forbids_training, trainable
from tunepoint.errors import DataError, TaskError
from tunepoint.models.encoder import Encoder


def licensed(folder: Path, **sections: Any) -> Task:
    """Messages of two queues; every fourth is of another writer, every fifth under another licence."""
    with (folder / "messages.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "queue", "by", "terms"])
        for i in range(80):
            word, queue = (("invoice", "billing"), ("pairing", "device_setup"))[i % 2]
            by = "openai/gpt-5-mini, prompt 4f2a" if i % 4 == 0 else ""
            writer.writerow(
                [i, f"{word} {i * 7919 % 997} {i}", queue, by, "CC-BY-ND-4.0" if i % 5 == 0 else ""]
            )
    data = {
        "path": "messages.csv",
        "input": "text",
        "target": "queue",
        "id": "id",
        "origin": "by",
        "licence": "terms",
    }
    content = {
        "name": "routing",
        "instruction": "Route the message.",
        "data": {**data, "no_training": ["cc-by-nd-4.0"]},
        "models": [{"name": "embedded:minilm"}, {"name": "openai/gpt-5-mini", "train_on_outputs": False}],
        "traffic": {"queries_per_month": 50_000},
        **sections,
    }
    return Task.parse(content, folder=folder)


def test_rows_that_may_not_be_trained_on_are_left_out_and_counted(tmp_path: Path) -> None:
    task = licensed(tmp_path)
    prepared = prepare(task, 0)
    audit = prepared.audit
    assert audit.origins == {"human": 60, "openai/gpt-5-mini, prompt 4f2a": 20}
    assert audit.untrainable == {"licence CC-BY-ND-4.0": 16, "written by openai/gpt-5-mini": 16}
    kept = trainable(task, prepared.split.train)
    assert 0 < len(kept) < len(prepared.split.train)
    assert all(e.licence is None and e.origin == "human" for e in kept)


def test_weights_learn_from_the_rest_alone_and_exports_hold_the_rest_alone(
    tmp_path: Path, encoder: Encoder
) -> None:
    task = licensed(tmp_path)
    prepared = prepare(task, 0)
    train = prepared.split.train
    kept = trainable(task, train)
    for arm in (Probe(encoder), FineTuned(encoder, seeds=1)):
        fitted = arm.fit(task, train, np.random.default_rng(1))
        alone = arm.fit(task, kept, np.random.default_rng(1))
        assert fitted.built.examples == len(kept) and np.array_equal(fitted.weight, alone.weight)
    hybrid = TunedWithRetrieval(FineTuned(encoder, seeds=1), 4, 0.5).fit(
        task, train, np.random.default_rng(1)
    )
    assert len(hybrid.inputs) == len(train)  # a prompt may show what weights may not learn
    written = export_examples(task, prepared, tmp_path / "out", "openai")
    assert written.train == len(kept) == len((tmp_path / "out" / "train.jsonl").read_text().splitlines())


def test_where_none_may_be_trained_on_the_error_says_what_to_change(tmp_path: Path) -> None:
    task = licensed(tmp_path)
    closed = [e for e in prepare(task, 0).examples if forbids_training(task, e)]
    with pytest.raises(
        DataError, match=r"none of the 32 training examples may be trained on .* data.no_training"
    ):
        trainable(task, closed)


def test_a_study_of_rows_that_were_open_is_not_one_of_rows_that_are_closed(tmp_path: Path) -> None:
    closed = prepare(licensed(tmp_path), 0).fingerprint
    models = [{"name": "embedded:minilm"}, {"name": "openai/gpt-5-mini", "train_on_outputs": True}]
    opened = prepare(licensed(tmp_path, models=models), 0).fingerprint
    assert closed != opened


def test_where_nothing_may_be_trained_on_prompts_are_measured_and_tuning_is_not_run(
    tmp_path: Path, encoder: Encoder
) -> None:
    task = licensed(tmp_path, models=[{"name": "embedded:minilm"}])
    assert task.data is not None
    shut = {"licence": "queue", "no_training": ("billing", "device_setup")}
    closed = task.model_copy(update={"data": task.data.model_copy(update=shut)})
    split = prepare(closed, 0).split
    tried = candidates(closed, encoder, (), split.train, split.dev, None)
    assert tried.baselines and not tried.tuned and not tried.hybrid and tried.curve_arm is None
    assert any("may be trained on" in arm.reason for arm in tried.not_run)


def test_closed_rows_of_dev_are_left_out_of_what_other_tools_get(tmp_path: Path) -> None:
    task = licensed(tmp_path)
    prepared = prepare(task, 0)
    dev = tuple(replace(example, licence="CC-BY-ND-4.0") for example in prepared.split.dev)
    shut = replace(prepared, split=replace(prepared.split, dev=dev))
    written = export_examples(task, shut, tmp_path / "out", "openai")
    assert written.dev == 0 and written.train > 0


@pytest.mark.parametrize(
    ("origin", "writers"),
    [
        ("human", ("human",)),
        ("openai/gpt-5-mini", ("openai/gpt-5-mini",)),
        ("openai/gpt-5-mini, prompt 4f2a", ("openai/gpt-5-mini",)),
        ("openai/gpt-5-mini, arm few-shot 10 per label, tagged", ("openai/gpt-5-mini",)),
        ("this machine, openai/gpt-5-mini, arm a cascade", ("this machine", "openai/gpt-5-mini")),
    ],
)
def test_an_origin_names_the_models_that_wrote_the_target(origin: str, writers: tuple[str, ...]) -> None:
    example = Example("1", "input", "target", origin=origin)
    assert example.writers == writers and example.writer == writers[0]


def test_check_counts_them(tmp_path: Path) -> None:
    task = licensed(tmp_path)
    (tmp_path / "task.toml").write_text(
        'name = "routing"\ninstruction = "Route."\n[data]\npath = "messages.csv"\ninput = "text"\n'
        'target = "queue"\nid = "id"\nlicence = "terms"\nno_training = ["CC-BY-ND-4.0"]\n'
    )
    shown = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert "not to be trained on: 1\n  • licence CC-BY-ND-4.0: 16" in shown.output, shown.output
    audit = json.loads(CliRunner().invoke(app, ["check", str(tmp_path), "--json"]).output)
    assert audit["untrainable"] == {"licence CC-BY-ND-4.0": 16} and task.data is not None


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    licensed(tmp_path)
    with pytest.raises(DataError, match="no column 'term'"):
        data = {"path": "messages.csv", "input": "text", "target": "queue", "licence": "term"}
        prepare(Task.parse({"name": "x", "data": data}, folder=tmp_path), 0)
    with pytest.raises(TaskError, match=r"unknown key .data\.licens"):
        Task.parse({"name": "x", "data": {"path": "messages.csv", "licens": "terms"}})
