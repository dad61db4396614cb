"""Fine-tuning a causal language model: the real training path, on a checkpoint that the tests build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import tiny_checkpoint

from tunepoint import Example, Task
from tunepoint.arms.causal import sft
from tunepoint.arms.causal.base import CausalBase
from tunepoint.arms.causal.causal import CausalTuned, FittedCausal
from tunepoint.arms.causal.checkpoints import CheckpointRace, by_group
from tunepoint.arms.causal.from_task import _with_rate
from tunepoint.arms.causal.hardware import check_fits, size_of
from tunepoint.arms.causal.job import TrainingJob
from tunepoint.arms.causal.loading import load_base, load_tokenizer, put_adapter
from tunepoint.arms.causal.recipe import CausalRecipe, learning_rate_for
from tunepoint.arms.causal.rows import IGNORED, Row, draw_prompt_lengths, rows_of
from tunepoint.arms.causal.sft import fine_tune
from tunepoint.arms.causal.trained import Trained, last_whole_checkpoint
from tunepoint.arms.contract import Built
from tunepoint.arms.distilled import DistilledSet
from tunepoint.arms.templates import PROMPT_LENGTHS, template_for_length
from tunepoint.errors import DataError, ModelError
from tunepoint.models.chat import Prompt, Usage
from tunepoint.models.endpoints import Completion, request_of
from tunepoint.models.templates import render

RNG = np.random.default_rng
LABELS = {"billing": "charges and invoices", "device_setup": "pairing a device"}
QUICK = CausalRecipe(learning_rate=5e-3, epochs=4, checkpoint_steps=5)


def task(**overrides: Any) -> Task:
    content = {"name": "t", "instruction": "Route the message.", "answer": {"labels": LABELS}}
    return Task.parse({**content, **overrides})


def examples(count: int = 64) -> list[Example]:
    return [
        Example(
            str(i), f"invoice {i}" if i % 2 else f"pairing device {i}", "billing" if i % 2 else "device_setup"
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of seed 1 from its first step to its last."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    fine_tune(TrainingJob(str(base), rows(base), (), QUICK, folder, seed=1))
    return folder


def rows(base: Path, count: int = 64) -> tuple[Row, ...]:
    tokenized = rows_of(
        task(),
        examples(count),
        draw_prompt_lengths(count, QUICK.prompt_shares, RNG(0)),
        load_tokenizer(str(base)),
        1_024,
    )
    return tokenized.rows


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    name = "adapter_model.safetensors"
    return load_file(folder / (name if (folder / name).exists() else "model.safetensors"))


def same(first_run: Path, second_run: Path) -> float:
    """The largest difference of two runs' weights."""
    first, second = weights(first_run), weights(second_run)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


# -- what is learnt from ---------------------------------------------------------------------


def test_a_row_is_what_serving_sends_and_then_the_answer(base: Path) -> None:
    tokenizer = load_tokenizer(str(base))
    for length in PROMPT_LENGTHS:
        row = rows_of(task(), examples(10), [length] * 10, tokenizer, 1_024).rows[1]
        template = template_for_length(task(), examples(), length)
        request = request_of(template.__class__(**{**vars(template), "input": "invoice 1"}))
        turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        assert tokenizer.decode(row.input_ids) == text + "billing" + tokenizer.eos_token
        counted = [t for t, label in zip(row.input_ids, row.labels, strict=True) if label != IGNORED]
        assert tokenizer.decode(counted) == "billing" + tokenizer.eos_token
        assert row.answer_tokens == len(counted)


def test_the_prompt_lengths_shrink_to_the_input_alone() -> None:
    sizes = []
    for length in PROMPT_LENGTHS:
        template = template_for_length(task(), examples(), length)
        turns = render(template.__class__(**{**vars(template), "input": "invoice 1"}))
        sizes.append(sum(len(turn.content) for turn in turns))
    assert sizes[0] > sizes[1] > sizes[2] == len("invoice 1")
    drawn = draw_prompt_lengths(3_000, (0.4, 0.3, 0.3), RNG(0))
    assert [drawn.count(length) / 3_000 for length in PROMPT_LENGTHS] == pytest.approx(
        [0.4, 0.3, 0.3], abs=0.03
    )


def test_examples_longer_than_the_context_are_counted_and_named_never_cut(base: Path) -> None:
    tokenizer, some = load_tokenizer(str(base)), examples(12)
    some[3] = Example("long", "word " * 500, "billing")
    tokenized = rows_of(task(), some, ["none"] * 12, tokenizer, 200)
    assert [name for name, _ in tokenized.too_long] == ["long"] and len(tokenized.rows) == 11
    assert "1 examples have more tokens than the context of 200" in tokenized.warnings(200)[0]
    assert (
        tokenized.too_long[0][1] > 500 and f"long ({tokenized.too_long[0][1]})" in tokenized.warnings(200)[0]
    )
    with pytest.raises(DataError, match=r"that is 12 of 12: shorten the inputs"):
        rows_of(task(), some, ["none"] * 12, tokenizer, 3)
    with pytest.raises(DataError, match=r"9 training examples are too few.*10 at least"):
        rows_of(task(), some[:9], ["none"] * 9, tokenizer, 200)


# -- a run ------------------------------------------------------------------------------------


def test_the_loss_falls_and_the_adapter_comes_back_to_the_same_logits(base: Path, tmp_path: Path) -> None:

    seen: list[tuple[int, int, float]] = []
    trained = fine_tune(
        TrainingJob(str(base), rows(base), (), QUICK, tmp_path / "run", seed=1),
        watch=lambda *step: seen.append(step),
    )
    assert trained.losses[-1] < 0.95 * trained.losses[0] and trained.warnings == ()
    assert seen[-1][1] == QUICK.steps(64) and seen[-1][2] < seen[0][2]
    assert trained.tokens == 4 * sum(len(row.input_ids) for row in rows(base))
    assert Trained.read(tmp_path / "run") == trained and not (tmp_path / "run" / "checkpoints").exists()
    inputs = torch.tensor([rows(base)[0].input_ids])
    model, _ = load_base(str(base))
    with torch.inference_mode():
        plain = model(inputs).logits
        tuned = put_adapter(model, tmp_path / "run")
        first = tuned(inputs).logits
        again = put_adapter(load_base(str(base))[0], tmp_path / "run")(inputs).logits
        merged = tuned.merge_and_unload()(inputs).logits
    assert torch.equal(first, again) and not torch.allclose(first, plain, atol=1e-3)
    assert torch.allclose(first, merged, atol=1e-4)


@pytest.mark.no_cover  # what it runs, others cover
def test_seeds_differ_and_the_same_seed_gives_the_same_weights(
    base: Path, whole: Path, tmp_path: Path
) -> None:
    for name, seed in (("again", 1), ("b", 2), ("c", 3)):
        fine_tune(TrainingJob(str(base), rows(base), (), QUICK, tmp_path / name, seed=seed))
    assert same(whole, tmp_path / "again") == 0
    assert min(same(whole, tmp_path / "b"), same(tmp_path / "b", tmp_path / "c")) > 1e-3


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_causal import QUICK, TrainingJob, fine_tune, rows
def watch(step, steps, loss):
    if step > {at} + 1:
        print(step, flush=True)
        time.sleep(600)
base = Path({base!r})
fine_tune(TrainingJob(str(base), rows(base), (), QUICK, Path({out!r}), seed=1), watch=watch)
"""


@pytest.mark.parametrize("at", [5, 15])  # in the first epoch of eight steps, and in the second
def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_weights(
    base: Path, whole: Path, tmp_path: Path, at: int
) -> None:
    out = tmp_path / "killed"
    code = KILLED.format(tests=str(Path(__file__).parent), base=str(base), out=str(out), at=at)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline(), "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (
        Trained.read(out) is None and last_whole_checkpoint(out) == out / "checkpoints" / f"checkpoint-{at}"
    )
    steps: list[int] = []
    fine_tune(
        TrainingJob(str(base), rows(base), (), QUICK, out, seed=1),
        watch=lambda step, total, loss: steps.append(step),
    )
    assert steps[0] > at  # it did not begin anew
    assert same(whole, out) == 0


def test_a_checkpoint_that_was_cut_off_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    assert last_whole_checkpoint(tmp_path) is None
    for step, state in ((5, "{}"), (10, ""), (15, None)):
        checkpoint = tmp_path / "checkpoints" / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        if state is not None:
            (checkpoint / "trainer_state.json").write_text(state)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoints" / "checkpoint-5"


def test_dev_stops_a_run_whose_answers_get_worse_and_keeps_the_best(base: Path, tmp_path: Path) -> None:
    other = {"billing": "device_setup", "device_setup": "billing"}
    against = [Example(e.id, e.input, other[e.target]) for e in examples(24)]
    dev = rows_of(task(), against, ["none"] * 24, load_tokenizer(str(base)), 1_024).rows
    recipe = CausalRecipe(learning_rate=2e-2, epochs=30)
    trained = fine_tune(TrainingJob(str(base), rows(base), dev, recipe, tmp_path / "run", seed=1))
    assert len(trained.dev_losses) < 30 and trained.dev_losses[-1] > min(trained.dev_losses)
    tuned = put_adapter(load_base(str(base))[0], tmp_path / "run")
    with torch.inference_mode():
        losses = [
            float(tuned(torch.tensor([r.input_ids]), labels=torch.tensor([r.labels])).loss) for r in dev
        ]
    weights_ = [row.answer_tokens for row in dev]
    assert np.average(losses, weights=weights_) == pytest.approx(min(trained.dev_losses), rel=0.02)


@pytest.mark.no_cover  # what it runs, others cover
def test_checkpoints_race_on_dev_and_the_best_answers_are_kept(base: Path, tmp_path: Path) -> None:
    shared = CausalBase(str(base), tmp_path, recipe=QUICK, dev=tuple(examples(60)))
    met: list[list[str]] = []
    race = shared._race(task(), examples(), RNG(0))
    assert race is not None and len(race.examples) == 60

    def pick(model: Any, tokenizer: Any, checkpoints: Any) -> Path:
        met.append([path.name for path in checkpoints])
        race(model, tokenizer, checkpoints)
        return Path(checkpoints[0])

    picked = fine_tune(
        TrainingJob(str(base), rows(base), rows(base)[:24], QUICK, tmp_path / "run", seed=1), pick=pick
    )
    assert len(met) == 1 and 2 <= len(met[0]) <= 3
    other = fine_tune(TrainingJob(str(base), rows(base), rows(base)[:24], QUICK, tmp_path / "other", seed=1))
    assert same(picked.folder, other.folder) > 1e-4  # the first of them, not the one of the lowest loss
    built = CausalTuned(shared, "none", "tiny").fit(task(), examples(), RNG(5))
    assert built.answer(["invoice 1"])[0].answer in LABELS


def test_a_race_of_checkpoints_stops_the_hopeless_and_counts_groups_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grouped = [Example(str(i), f"{i}", "billing", group=f"g{i // 4}") for i in range(200)]
    ordered = by_group(grouped, RNG(0))
    names = [example.group for example in ordered]
    assert all(names[i] == names[i - 1] for i in range(1, 200) if names.index(names[i]) < i)
    answered: list[str] = []

    def answers(self: Any, model: str, tokenizer: Any, start: int, end: int) -> Any:
        answered.extend([model] * (end - start))
        return np.full(end - start, 1.0 if model == "checkpoint-20" else 0.0)

    monkeypatch.setattr("tunepoint.arms.causal.checkpoints.put_adapter", lambda model, path, name: name)
    monkeypatch.setattr(CheckpointRace, "_answers", answers)
    race = CheckpointRace(ordered, (), None)  # type: ignore[arg-type]
    checkpoints = [Path(f"checkpoint-{step}") for step in (10, 20, 30)]
    assert race(None, None, checkpoints).name == "checkpoint-20"
    assert len(answered) < 3 * 200 and answered.count("checkpoint-10") < 200
    monkeypatch.setattr(CheckpointRace, "_answers", lambda self, model, tok, start, end: np.ones(end - start))
    assert race(None, None, checkpoints).name == "checkpoint-30"  # ties: the last


@pytest.mark.no_cover  # what it runs, others cover
def test_memory_that_runs_out_halves_the_batch_and_goes_on(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, sizes = sft.run_trainer, []

    def small(trainer: Any, job: TrainingJob) -> None:
        sizes.append((trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps))
        if sizes[-1][0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        whole(trainer, job)

    monkeypatch.setattr(sft, "run_trainer", small)
    trained = fine_tune(TrainingJob(str(base), rows(base), (), QUICK, tmp_path / "run", seed=1))
    assert sizes == [(8, 1), (4, 2), (2, 4)] and trained.batch == 2
    assert "memory ran out with 8 examples at once; 2 were computed at a time" in trained.warnings

    def none(trainer: Any, job: TrainingJob) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 99 bytes")

    monkeypatch.setattr(sft, "run_trainer", none)
    with pytest.raises(ModelError, match=r"one example at a time .* Use a smaller base"):
        fine_tune(TrainingJob(str(base), rows(base), (), QUICK, tmp_path / "other", seed=1))


def test_a_run_that_fails_says_how(base: Path, tmp_path: Path) -> None:
    still = fine_tune(
        TrainingJob(
            str(base), rows(base), (), CausalRecipe(learning_rate=1e-9, epochs=2), tmp_path / "still", seed=1
        )
    )
    assert "the loss did not fall" in still.warnings[0]
    wild = fine_tune(
        TrainingJob(
            str(base),
            rows(base),
            (),
            CausalRecipe("full", learning_rate=1e30, epochs=2),
            tmp_path / "wild",
            seed=1,
        )
    )
    assert any("diverged" in warning or "did not fall" in warning for warning in wild.warnings)


# -- the arms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full"])
def test_three_prompts_share_one_run_and_answers_are_labels(base: Path, tmp_path: Path, method: Any) -> None:
    rate = 5e-3
    shared = CausalBase(str(base), tmp_path, recipe=CausalRecipe(method, learning_rate=rate, epochs=6))
    arms = {length: CausalTuned(shared, length, "tiny") for length in PROMPT_LENGTHS}
    assert {length: arm.kind for length, arm in arms.items()} == {
        "full": "hybrid",
        "short": "hybrid",
        "none": "tuned",
    }
    assert len({arm.name for arm in arms.values()}) == 3
    fitted = {length: arm.fit(task(), examples(), RNG(5)) for length, arm in arms.items()}
    assert len(list(tmp_path.iterdir())) == 1
    inputs = [example.input for example in examples(8)]
    for model in fitted.values():
        replies = model.answer(inputs)
        assert all(reply.answer in LABELS and reply.confidence is not None for reply in replies)
    tokens = [fitted[length].answer(inputs[:1])[0].usage.input_tokens for length in PROMPT_LENGTHS]
    assert tokens[0] > tokens[1] > tokens[2]


@pytest.mark.no_cover  # what it runs, others cover
def test_each_fitted_arm_answers_with_its_own_seed(base: Path, tmp_path: Path) -> None:
    shared = CausalBase(str(base), tmp_path, recipe=QUICK)
    arm = CausalTuned(shared, "none", "tiny")
    first, second = arm.fit(task(), examples(), RNG(1)), arm.fit(task(), examples(), RNG(2))
    before = [reply.confidence for reply in first.answer(["invoice 7", "pairing"])]
    other = [reply.confidence for reply in second.answer(["invoice 7", "pairing"])]
    assert [reply.confidence for reply in first.answer(["invoice 7", "pairing"])] == before != other
    fresh = CausalTuned(CausalBase(str(base), tmp_path, recipe=QUICK), "none", "tiny")
    again = fresh.fit(task(), examples(), RNG(1))  # from disk, not trained again
    assert [reply.confidence for reply in again.answer(["invoice 7", "pairing"])] == pytest.approx(before)
    assert again.built.seconds == first.built.seconds


def test_a_model_that_says_the_same_to_everything_is_noticed(base: Path, tmp_path: Path) -> None:
    same_word = [Example(e.id, e.input, "billing") for e in examples(40)]
    same_word[0] = Example("0", "invoice", "device_setup")
    recipe = CausalRecipe(learning_rate=3e-2, epochs=6, prompt_shares=(1.0, 0.0, 0.0))
    shared = CausalBase(str(base), tmp_path, recipe=recipe)
    built = CausalTuned(shared, "full", "tiny").fit(task(), same_word, RNG(1)).built
    assert "the tuned model collapsed: it answers 'billing' to all of 24 training examples" in built.warnings


def test_the_names_of_runs_and_of_arms_stay_and_labels_are_for_people(base: Path, tmp_path: Path) -> None:
    assert CausalRecipe().digest() == "c4ecbc15"  # part of the names of runs on disk
    distilled = DistilledSet("teacher", "0" * 8, tuple(examples(12)), 12, 0.1)
    arm = CausalTuned(CausalBase(str(base), tmp_path), "short", "tiny")
    taught = CausalTuned(arm.base, "none", "tiny", distilled=distilled)
    assert (arm.name, arm.label) == ("tiny lora, instruction alone", "tuned tiny, instruction alone")
    assert (taught.name, taught.label) == ("tiny lora taught, no prompt", "tuned tiny, distilled, no prompt")


# -- what does not fit ------------------------------------------------------------------------


def test_a_base_that_does_not_fit_is_refused_with_the_sizes(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = size_of(str(base))
    assert size.parameters == sum(p.numel() for p in load_base(str(base))[0].parameters())
    assert size.context == 1_024 and size.layers == 2 and size.local
    check_fits(str(base), size, QUICK, 512, tmp_path)
    monkeypatch.setattr("tunepoint.arms.causal.hardware.free_bytes", lambda: 2**20)
    with pytest.raises(ModelError, match=r"lora of 0\.00 billion .* takes about \d+ MiB of memory and 1 MiB"):
        check_fits(str(base), size, QUICK, 512, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(
        ModelError, match=r"trained weights and a checkpoint takes about .* has room for 0 MiB"
    ):
        check_fits(str(base), size, CausalRecipe("full"), 512, tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="'qlora' needs a CUDA device"):
            check_fits(str(base), size, CausalRecipe("qlora"), 512, tmp_path)


def test_what_is_no_base_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it is asked, again and again
    with pytest.raises(ModelError, match=r"name a directory with config\.json"):
        size_of("nowhere", tmp_path)
    bare = tiny_checkpoint(tmp_path / "bare", template=None)
    with pytest.raises(ModelError, match="its tokenizer has no chat template"):
        CausalTuned(CausalBase(str(bare), tmp_path / "runs"), "none", "tiny").fit(task(), examples(), RNG(0))


def test_two_runs_of_one_base_answer_with_their_own_weights_at_the_same_time(tmp_path: Path) -> None:
    class Sharing(CausalBase):
        """Answers with the run whose weights are in place when it ends."""

        name, at = "shared", ""

        def endpoint(self, run: str) -> Any:
            self.at = run
            return self

        def complete(self, requests: Any, done: Any, allow: Any) -> None:
            time.sleep(0.005)
            for place, _ in enumerate(requests):
                done(place, Completion(self.at, Usage("shared")))

    base = Sharing("base", tmp_path)
    template = Prompt("", "Say who you are.", kind="text")
    arms = [FittedCausal(base, run, template, Built(1)) for run in ("one", "other")]
    with ThreadPoolExecutor(2) as pool:
        answers = [(arm, pool.submit(arm.answer, ["who?"])) for _ in range(20) for arm in arms]
        assert all(answer.result()[0].answer == arm.run for arm, answer in answers)


def test_logits_are_computed_of_the_answers_tokens_alone(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer import utils

    projected: list[int] = []
    original = utils._ChunkedLogProbFunction

    def counted(hidden: torch.Tensor, *rest: Any) -> Any:
        projected.append(len(hidden))
        return original.apply(hidden, *rest)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", SimpleNamespace(apply=counted))
    sixteen = rows(base, 16)
    recipe = replace(QUICK, epochs=1)
    fine_tune(TrainingJob(str(base), sixteen, (), recipe, tmp_path / "run", seed=1))
    assert sum(projected) == sum(row.answer_tokens for row in sixteen)


def test_narrow_bases_learn_with_a_higher_rate_and_runs_of_before_keep_theirs(
    base: Path, tmp_path: Path
) -> None:
    rates = [learning_rate_for("lora", width) for width in (576, 1_024, 2_000, 4_096)]
    assert rates == [1e-3, 8.4e-4, 5e-4, 2.9e-4]
    assert learning_rate_for("full", 576) == learning_rate_for("full", 4_096) == 2e-5
    recipe = CausalRecipe()
    assert _with_rate(recipe, str(base), Path(), tmp_path).rate == 1e-3
    given = replace(recipe, learning_rate=3e-4)
    assert _with_rate(given, str(base), Path(), tmp_path) == given
    (tmp_path / f"0123456789ab-{recipe.digest()}-0000000001").mkdir()
    assert _with_rate(recipe, str(base), Path(), tmp_path).rate == 2e-4
