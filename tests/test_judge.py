"""A model as the judge: grading, its noise, its correction by people, and studies that use it."""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import Fake, serving
from test_chat_study import asked
from typer.testing import CliRunner

from tunepoint import Task, prepare, run
from tunepoint.cli.app import app
from tunepoint.costs.arm_cost import ArmCost
from tunepoint.data.examples import Example
from tunepoint.decision.verdict import decide
from tunepoint.errors import DataError, EvidenceError, ModelError, TaskError
from tunepoint.files.amounts import TokenPrice
from tunepoint.models.chat import Prompt, Reply, Usage
from tunepoint.models.endpoints import CallSettings
from tunepoint.models.named_models import NamedModel
from tunepoint.models.opening import open_models
from tunepoint.stats.calibrated import cluster_error, rectify
from tunepoint.stats.comparisons import compare
from tunepoint.stats.disagreements import AGREED
from tunepoint.stats.paired import joint_scores
from tunepoint.study.labelling.label import Labelling, label
from tunepoint.study.labelling.sheet import SHEET
from tunepoint.study.quote import Quote
from tunepoint.trials.human_grades import read_grades
from tunepoint.trials.judge import Judge
from tunepoint.trials.judge_quality import calibrate
from tunepoint.trials.tabulation import tabulate
from tunepoint.trials.trial import Trial, normalize_answer

RUBRIC = "The reply names the brand and the size of the box."
TASK = Task.parse(
    {
        "name": "replies",
        "instruction": "Answer the customer.",
        "answer": {"kind": "text"},
        "score": {"metric": "judge", "judge": "openai/gpt-5-mini", "rubric": RUBRIC},
    }
)
EXAMPLES = [Example(f"e{i}", f"question {i}", f"reply {i}") for i in range(40)]


class Grader:
    """A chat model that grades by a function of the whole prompt."""

    name = "grader"
    remote = True

    def __init__(self, grade: Any) -> None:
        self.grade = grade
        self.prompts: list[Prompt] = []

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        self.prompts += prompts
        replies = []
        for prompt in prompts:
            grade = self.grade(prompt)
            replies.append(
                Reply("", None, Usage(self.name, 10, 0, 5), format_ok=False, error="refused")
                if grade is None
                else Reply(f"Fine. Answer: {grade}", str(grade), Usage(self.name, 10, 0, 5))
            )
        return replies


def first(prompt: Prompt) -> bool:
    return prompt.input.startswith("<answer>")


# -- grading --------------------------------------------------------------------------------


def test_a_score_is_the_mean_of_both_orders_and_one_item_in_five_is_asked_again() -> None:
    grader = Grader(lambda prompt: 5 if first(prompt) else 3)
    gradings = Judge(grader, TASK)([example.target for example in EXAMPLES], EXAMPLES)
    assert {grading.score for grading in gradings} == {0.75}
    repeated = [grading for grading in gradings if len(grading.grades) == 3]
    assert {grading.grades for grading in gradings} == {(0.5, 1.0), (0.5, 1.0, 0.5)}
    assert len(repeated) == sum(zlib.crc32(e.id.encode()) % 5 == 0 for e in EXAMPLES) > 2
    assert len(grader.prompts) == 2 * len(EXAMPLES) + len(repeated)
    assert gradings[0].usage == Usage("grader", 20, 0, 10, calls=2)
    prompt = grader.prompts[0]
    assert RUBRIC in prompt.instruction and "Answer the customer." in prompt.instruction
    assert prompt.labels == ("1", "2", "3", "4", "5") and prompt.reasoning
    assert "<reference>\nreply 0\n</reference>" in prompt.input


class Prober:
    """A chat model that says Yes or No, and how probable that was."""

    name = "prober"
    remote = True

    def __init__(self, yes: Callable[[Prompt], float | None]) -> None:
        self.yes = yes
        self.prompts: list[Prompt] = []

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        self.prompts += prompts
        replies = []
        for prompt in prompts:
            yes = self.yes(prompt)
            word = "Yes" if yes is None or yes >= 0.5 else "No"
            confidence = None if yes is None else max(yes, 1 - yes)
            replies.append(Reply(word, word, Usage(self.name, 10, 0, 1), confidence=confidence))
        return replies


BY_PROBABILITY = TASK.model_copy(update={"score": TASK.score.model_copy(update={"grading": "probability"})})


def test_the_probability_of_yes_is_a_score_and_is_not_asked_for_twice() -> None:
    prober = Prober(lambda prompt: 0.9 if first(prompt) else 0.2)
    gradings = Judge(prober, BY_PROBABILITY)([example.target for example in EXAMPLES], EXAMPLES)
    assert [grading.score for grading in gradings] == pytest.approx([0.55] * len(EXAMPLES))
    assert gradings[0].grades == pytest.approx((0.2, 0.9))
    assert len(prober.prompts) == 2 * len(EXAMPLES)
    prompt = prober.prompts[0]
    assert prompt.labels == ("Yes", "No") and not prompt.reasoning and RUBRIC in prompt.instruction
    assert BY_PROBABILITY.score.identity() != TASK.score.identity()


def test_a_judge_that_reports_no_probabilities_is_told_apart() -> None:
    with pytest.raises(ModelError, match=r"reports no probabilities; set score.grading = 'written'"):
        Judge(Prober(lambda prompt: None), BY_PROBABILITY)([e.target for e in EXAMPLES], EXAMPLES)
    with pytest.raises(TaskError, match="grading is for metric = 'judge'"):
        Task.parse({"name": "t", "score": {"metric": "exact", "grading": "probability"}})


def test_an_answer_without_a_grade_is_no_zero_and_a_useless_judge_is_given_up() -> None:
    def grade(prompt: Prompt) -> int | None:
        return None if "question 3\n" in prompt.input else 4

    gradings = Judge(Grader(grade), TASK)([e.target for e in EXAMPLES], EXAMPLES)
    assert gradings[3].score is None and gradings[3].why == "refused"
    assert all(grading.score == 0.75 for i, grading in enumerate(gradings) if i != 3)
    with pytest.raises(ModelError, match=r"could not grade 40 of 40 answers. The first: e0: refused"):
        Judge(Grader(lambda prompt: None), TASK)([e.target for e in EXAMPLES], EXAMPLES)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ({"metric": "judge", "rubric": "good"}, "needs judge: "),
        ({"metric": "judge", "judge": "openai/gpt-5-mini"}, "needs rubric"),
        ({"metric": "exact", "rubric": "good"}, "for metric = 'judge', but the metric is 'exact'"),
        ({"metric": "judge", "judge": {"nam": "x"}, "rubric": "good"}, "score.judge"),
        ({"metric": "judge", "judge": "openai/x", "rubric": "good", "scale": 1}, "scale"),
        ({"metric": "jugde"}, "did you mean 'judge'"),
    ],
)
def test_mistakes_in_a_judged_task(score: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("input,target\n" + "".join(f"a{i},b{i % 2}\n" for i in range(20)))
    with pytest.raises(TaskError, match=message):
        run(
            Task.parse({"name": "t", "data": {"path": "data.csv"}, "score": score}, folder=tmp_path),
            out=tmp_path / "study",
        )


def test_a_judges_replies_may_be_recorded_too(tmp_path: Path) -> None:
    judge = {"name": "openai/gpt-5-mini", "replies": "grades.jsonl"}
    content = {"name": "t", "score": {"metric": "judge", "judge": judge, "rubric": "good"}}
    recorded = Task.parse(content, folder=tmp_path)
    assert recorded.replies() == {"openai/gpt-5-mini": tmp_path / "grades.jsonl"}
    asking = recorded.asking_models()
    assert asking.replies() == {} and asking.score.rubric == "good"
    assert asking.trials_fingerprint() != recorded.trials_fingerprint()


# -- people correct the judge -----------------------------------------------------------------


def world(rng: np.random.Generator, items: int) -> tuple[Any, Any]:
    """(judge, truth) of three arms, (items, 3) each; the judge likes the first and dislikes the second."""
    ease = rng.normal(0, 0.6, (items, 1))
    chance = 1 / (1 + np.exp(-(np.array([1.4, 1.4, 0.85]) + ease)))
    truth = (rng.random((items, 3)) < chance).astype(float)
    liking = np.array([0.12, -0.05, 0.05])
    judge = np.clip(0.6 * truth + 0.24 + liking + rng.normal(0, 0.15, (items, 3)), 0, 1)
    return np.round(judge * 4) / 4, truth


def seen_by_people(truth: Any, labelled: Any) -> Any:
    human = np.full(truth.shape, np.nan)
    human[labelled] = truth[labelled]
    return human


def test_the_correction_is_that_of_ppi_python() -> None:
    """Reference figures of ppi-python 0.2.3 on the same data: `ppi_mean_pointestimate`, `ppi_mean_ci`."""
    rng = np.random.default_rng(7)
    truth = rng.beta(4, 2, 460)
    judged = np.clip(truth + rng.normal(0.1, 0.15, 460), 0, 1)
    grades = (rng.random(460) < truth).astype(float)
    rectified = rectify(judged[None], seen_by_people(grades, np.arange(60))[None])
    assert rectified.scores.mean() == pytest.approx(0.6389301551641442, abs=1e-9)
    error = np.sqrt(rectified.scores.var(ddof=1) / 460)
    assert error == pytest.approx(0.06084683, rel=0.02)  # theirs divides by n, ours by n - 2
    assert rectified.groups == 60 and 0.3 < rectified.power < 0.45
    assert rectified.correction.estimate == pytest.approx(rectified.scores.mean() - judged.mean())


def test_a_perfect_judge_is_believed_and_a_blind_one_is_not() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(300) < 0.7).astype(float)[None]
    human = seen_by_people(truth[0], np.arange(40))[None]
    perfect = rectify(truth, human)
    assert perfect.scores.mean() == pytest.approx(truth.mean(), abs=0.005) and perfect.power > 0.8
    blind = rectify(rng.permutation(truth[0])[None], human)
    assert blind.scores.mean() == pytest.approx(truth[0, :40].mean(), abs=0.05) and blind.power < 0.2
    constant = rectify(np.full((1, 300), 0.5), human)
    assert constant.scores.mean() == pytest.approx(truth[0, :40].mean())


def test_corrected_differences_hold_their_level_where_the_judge_alone_does_not() -> None:
    rng = np.random.default_rng(3)
    true = world(rng, 400_000)[1].mean(axis=0)
    corrected = naive = 0
    studies, items, graded = 200, 250, 40
    for _ in range(studies):
        judge, truth = world(rng, items)
        human = seen_by_people(truth, rng.choice(items, graded, replace=False))
        arms = [rectify(judge[None, :, a], human[None, :, a]).scores for a in range(3)]
        difference = compare(joint_scores(arms, graded_groups=graded), [(0, 1)], rng)[0].difference
        corrected += true[0] - true[1] in difference
        alone = joint_scores([judge[None, :, a] for a in range(3)])
        naive += true[0] - true[1] in compare(alone, [(0, 1)], rng)[0].difference
    assert corrected / studies > 0.92
    assert naive / studies < 0.2


def test_clusters_are_kept_whole_in_the_correction() -> None:
    assert cluster_error(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1])) == pytest.approx(0.5)
    with pytest.raises(EvidenceError, match="people graded 4 of 5 items in 2 groups"):
        rectify(
            np.zeros((1, 5)), np.array([[1.0, 0, 1, 0, np.nan]]), np.array([0, 0, 1, 1, 2], dtype=np.intp)
        )


def judged_trials(rng: np.random.Generator, items: int, graded: int, unread: int = 0) -> list[Trial]:
    judge, truth = world(rng, items)
    trials = []
    for a, arm in enumerate(("prompt a", "tuned b", "prompt c")):
        for i in range(items):
            last, firstly = float(judge[i, a]), min(1.0, float(judge[i, a]) + 0.25 * (i % 2))
            trials.append(
                Trial(
                    arm=arm,
                    item=str(i),
                    score=(last + firstly) / 2,
                    grades=(last, firstly, last if i % 4 else 1 - last),
                    human=float(truth[i, a]) if i < graded else None,
                    format_ok=not (a == 2 and i < unread),
                )
            )
    return trials


COSTS = [ArmCost("prompt a", "prompt"), ArmCost("tuned b", "tuned"), ArmCost("prompt c", "prompt")]


def test_noise_and_position_are_measured() -> None:
    _, judged = calibrate(tabulate(judged_trials(np.random.default_rng(0), 200, 0)))
    assert judged is not None and judged.noise is not None
    noise = judged.noise
    assert noise.answers == 600 and noise.repeated == 600
    assert noise.agreement is not None and 0.72 < noise.agreement < 0.9  # a quarter is turned round
    assert 0.05 < noise.position.estimate < 0.13 and 0 not in noise.position
    assert 0 < noise.noise_share < 0.3
    assert judged.calibrations == () and judged.graded[0] == ("prompt a", 0)


@pytest.mark.no_cover  # what it runs, others cover
def test_the_noise_share_is_the_variance_of_repeated_judging() -> None:
    """Judging the same answers anew moves the mean by as much as the share says."""
    rng = np.random.default_rng(5)
    truth = rng.random(400)
    means, shares, whole = [], [], []
    for _ in range(300):
        grades = np.clip(truth + rng.normal(0, 0.2, (2, 400)), 0, 1)
        trials = [
            Trial(arm="a", item=str(i), score=float(grades[:, i].mean()), grades=tuple(grades[:, i]))
            for i in range(400)
        ]
        table = tabulate(trials)
        noise = calibrate(table)[1].noise  # type: ignore[union-attr]
        assert noise is not None
        means.append(float(table.arms[0].scores.mean()))
        shares.append(noise.noise_share)
        whole.append(cluster_error(table.arms[0].scores[0], np.arange(400)) ** 2)
    assert np.var(means, ddof=1) == pytest.approx(np.mean(shares) * np.mean(whole), rel=0.25)


def test_a_decision_with_people_is_corrected_and_without_them_it_says_so() -> None:
    rng = np.random.default_rng(1)
    alone = decide(tabulate(judged_trials(rng, 400, 0)), COSTS, TASK, np.random.default_rng(0))
    assert any("opinion that nobody has checked" in caveat for caveat in alone.caveats)
    assert any("when the answer stands first" in caveat for caveat in alone.caveats)
    assert any("repeated its grade" in caveat for caveat in alone.caveats)
    rng = np.random.default_rng(1)
    checked = decide(tabulate(judged_trials(rng, 400, 80)), COSTS, TASK, np.random.default_rng(0))
    assert checked.judged is not None and len(checked.judged.calibrations) == 3
    assert any(
        "corrected by people's grades of at least 80 test items" in caveat for caveat in checked.caveats
    )
    first_arm = checked.judged.calibrations[0]
    moved = checked.finalist("prompt a").score.estimate - alone.finalist("prompt a").score.estimate
    assert moved == pytest.approx(first_arm.correction.estimate) and moved < 0
    wide, narrow = (d.finalist("prompt a").score for d in (checked, alone))
    assert wide.high - wide.low > narrow.high - narrow.low
    if checked.evidence_needed is not None and checked.evidence_needed.test_items:
        assert "graded by people as now" in checked.evidence_needed.why


def test_too_few_graded_items_correct_nothing() -> None:
    table = tabulate(judged_trials(np.random.default_rng(0), 100, 9))
    same, judged = calibrate(table)
    assert same is table and judged is not None and judged.graded[0] == ("prompt a", 9)
    assert calibrate(tabulate([Trial(arm="a", item="1", score=1)]))[1] is None


# -- sheets -----------------------------------------------------------------------------------


def test_grades_of_people_are_read_whatever_a_spreadsheet_did(tmp_path: Path) -> None:
    (tmp_path / "to_grade.csv").write_text(
        'item,input,reference,answer,grade\n1,q,r,"two\r\nlines ",4\n1,q,r,other,\n2,q,r,x,"2,5"\n'
    )
    (tmp_path / "more.jsonl").write_text(json.dumps({"item": 2, "answer": "x", "grade": 5}) + "\n")
    score = {"metric": "judge", "judge": "openai/x", "rubric": "r", "human": "more.jsonl"}
    task = Task.parse({"name": "t", "score": score}, folder=tmp_path)
    grades = read_grades(task, tmp_path)
    assert grades == {("1", "two lines"): 0.75, ("2", "x"): pytest.approx((0.375 + 1) / 2)}
    assert normalize_answer(" a\n b ") == "a b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item,answer,grade\n1,a,6\n", r"to_grade.csv:2: grade is '6'; expected a number from 1 to 5"),
        ("item,answer,grade\n1,a,good\n", r"to_grade.csv:2: grade is 'good'"),
        ("item,answer,grades\n1,a,3\n", r"no column 'grade'; did you mean 'grades'"),
    ],
)
def test_mistakes_on_a_sheet(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "to_grade.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_grades(TASK, tmp_path)


# -- studies ----------------------------------------------------------------------------------

BRANDS = ("Acme", "Globex", "Initech", "Umbra")
PAIR = re.compile(r"(\w+) box of (\d+)")


def shop(folder: Path, count: int = 120) -> Path:
    """Questions about boxes, with the reply that a shop would send."""
    rng = np.random.default_rng(0)
    with (folder / "shop.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("text", "reply"))
        for i in range(count):
            brand, size = BRANDS[i % 4], int(rng.integers(1, 99))
            words = " ".join(f"{a}{b}" for a, b in rng.integers(100, 999, (3, 2)).tolist())
            rows.writerow((f"{words} is the {brand} box of {size} in stock?", f"The {brand} box of {size}."))
    return folder


def serve(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
    """The model under test forgets sizes without examples; the judge reads both orders, one kindly."""
    text = messages[-1]["content"]
    if body["model"] == "judge":
        text = next(
            (m["content"] for m in messages if m["role"] == "user" and "</answer>" in m["content"]), ""
        )
        if not text:
            return "ok"
        question_boxes = PAIR.findall(text.split("</input>")[0].split("<input>")[-1])
        graded_answer = text.split("<answer>")[1].split("</answer>")[0]
        if not question_boxes:
            return "Answer: 1"
        brand, size = question_boxes[-1]
        grade = (
            1
            + 2 * (brand in graded_answer)
            + 2 * (size in graded_answer)
            - (text.startswith("<answer>") and "2" in size)
        )
        return f"It names what it names.\nAnswer: {max(1, grade)}"
    boxes = PAIR.findall(text)
    if not boxes:
        return "ok"
    brand, size = boxes[-1]
    has_examples = sum(message["role"] == "assistant" for message in messages) > 1
    return f"The {brand} box{f' of {size}' if has_examples or len(size) < 2 or brand == 'Acme' else ''}."


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving(Fake(serve, models=("tiny", "judge"))) as running:
        yield running


def judged_task(folder: Path, fake: Fake, **score: Any) -> Task:
    judge = {"name": f"{fake.url}#judge", "price": {"input": 2, "output": 8}}
    return Task.parse(
        {
            "name": "shop",
            "instruction": "Answer the customer.",
            "data": {"path": "shop.csv", "input": "text", "target": "reply"},
            "answer": {"kind": "text"},
            "score": {"metric": "judge", "judge": judge, "rubric": RUBRIC, **score},
            "search": {"calls": 0},
            "models": [asked(fake)],
        },
        folder=folder,
    )


def test_a_judged_study_is_quoted_graded_checked_by_people_and_corrected(fake: Fake, tmp_path: Path) -> None:
    quotes: list[Quote] = []
    out = tmp_path / "study"
    task = judged_task(shop(tmp_path), fake)
    result = run(task, out=out, confirm=quotes.append)
    assert "few-shot" in result.decision.winner
    calls = len(fake.calls)
    assert quotes[0].calls.low <= calls <= quotes[0].calls.high
    graded = sum(body["model"] == "judge" for body in fake.calls)
    assert 150 < graded < calls / 2  # most arms answer alike, and an answer is graded once
    judge = result.document["judge"]
    assert judge["noise"]["agreement"] == 1.0 and judge["noise"]["position"]["high"] < 0
    assert any("nobody has checked" in caveat for caveat in result.document["caveats"])
    spent = json.loads((out / "manifest.json").read_text())["spent_usd"]
    assert quotes[0].usd.low * 0.1 < spent <= quotes[0].usd.high
    with (out / "to_grade.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"item", "input", "reference", "answer", "grade"} and len(rows) >= 30
    assert not {row["grade"] for row in rows} - {""}

    for row in rows[:60]:  # people are stricter: without the size it is worth nothing
        row["grade"] = "5" if row["reference"] == row["answer"] else "1"
    with (out / "to_grade.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    corrected_result = run(task, out=out, confirm=quotes.append)
    assert len(fake.calls) == calls and len(quotes) == 1  # nobody is asked, so nothing is quoted
    corrected = {
        calibration["arm"]: calibration for calibration in corrected_result.document["judge"]["calibrations"]
    }
    assert len(corrected) == len(corrected_result.document["finalists"])
    worst = min(corrected_result.document["finalists"], key=lambda arm: arm["score"]["estimate"])
    assert corrected[worst["arm"]]["correction"]["estimate"] < 0
    assert (out / "to_grade.csv").read_text().count(",5") > 5
    page = (out / "report.html").read_text()
    assert "corrected by people" in page and "built-in method" not in page
    assert f'<td class="number">{corrected[worst["arm"]]["items"]}</td>' in page


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_judge_grades_the_pool_and_people_grade_where_it_sees_a_difference(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Labelling, "settled", property(lambda state: False))  # it is sure without any label
    out, folder = tmp_path / "study", shop(tmp_path)
    task = judged_task(folder, fake)
    run(task, out=out)
    pool = tmp_path / "pool.csv"
    words = np.random.default_rng(9).integers(1_000, 9_999, (70, 3)).tolist()
    questions = [f"q{a} w{b} e{c}: is the {BRANDS[a % 4]} box of {b % 90 + 5} in stock?" for a, b, c in words]
    write_rows(pool, [{"text": text, "reply": ""} for text in questions])
    judged_before = sum(body["model"] == "judge" for body in fake.calls)
    quotes: list[Any] = []
    state = label(out, pool=pool, batch=40, confirm=quotes.append)
    assert sum(body["model"] == "judge" for body in fake.calls) > judged_before and quotes[0].usd > 0
    assert state.pool.judged is not None and state.sheet is not None
    ranks = {i: len(set(np.round(state.pool.judged[i], 2))) for i in state.pool.disputed}
    assert set(ranks.values()) == {1, 2} or set(ranks.values()) == {2}
    if 1 in ranks.values():  # ties of the judge come seldom, and are a stratum all the same
        tied = next(i for i, count in ranks.items() if count == 1)
        other = next(i for i, count in ranks.items() if count == 2)
        assert state.pool.weights[tied] < state.pool.weights[other]
        assert state.pool.strata[tied] not in (AGREED, state.pool.strata[other])

    def fill(right: Callable[[dict[str, str]], str]) -> None:
        with (out / SHEET).open(newline="") as file:
            rows = list(csv.DictReader(file))
        write_rows(out / SHEET, [{**row, "right": right(row)} for row in rows])

    fill(lambda row: "#9")
    with pytest.raises(DataError, match="#1=GRADE #2=GRADE with grades from 1 to 5"):
        label(out)

    def longest(row: dict[str, str]) -> str:
        return max((name for name in row if name[0] == "#"), key=lambda name: len(row[name]))

    fill(lambda row: f"{longest(row)}=5")
    state = label(out)
    assert state.new_labels > 30 and any("only the judge has graded" in doubt for doubt in state.doubts)
    scores = {score for each in state.pool.labels for score in each.scores.values()}
    assert scores == {0.0, 1.0}
    with (out / "to_grade.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    write_rows(
        out / "to_grade.csv",
        [{**row, "grade": "5" if row["reference"] == row["answer"] else "1"} for row in rows],
    )
    state = label(out)
    assert not any("only the judge" in doubt for doubt in state.doubts)
    caveats = state.decision.caveats
    counted = any("labels outside the test set count too" in caveat for caveat in caveats)
    assert counted or any("do not count" in caveat for caveat in caveats)


def test_a_judge_that_is_tested_too_is_asked_by_its_own_settings(fake: Fake, tmp_path: Path) -> None:
    name, price = f"{fake.url}#tiny", TokenPrice(input=1, output=4)
    tested = NamedModel(name, price, settings=CallSettings(temperature=1.0))
    judge = NamedModel(name, settings=CallSettings(max_output_tokens=7))
    with open_models([tested], tmp_path / "calls.sqlite", lambda model, _: model, judge=judge) as models:
        assert models.judge is not None and models.chats[0].endpoint is models.judge.endpoint
        for model in (models.chats[0], models.judge):
            model.answer([Prompt("Which box?", kind="text")])
    settings = [(call["temperature"], call["max_completion_tokens"] == 7) for call in fake.calls]
    assert settings == [(1.0, False), (0.0, True)]


@pytest.mark.no_cover  # what it runs, others cover
def test_answers_that_the_judge_cannot_grade_are_left_out_and_said(fake: Fake, tmp_path: Path) -> None:
    task = judged_task(shop(tmp_path, 60), fake)
    test = prepare(task, 0).split.test
    words = test[0].input.split(" is the")[0]

    def refusing(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        if body["model"] == "judge" and words in " ".join(turn["content"] for turn in messages):
            return "I would rather not."
        return serve(messages, body)

    fake.answer = refusing
    result = run(task, out=tmp_path / "study")
    caveats = " ".join(result.document["caveats"])
    assert f"could not grade 1 of its answers ({test[0].id}: " in caveats
    assert result.document["finalists"][0]["items"] == len(test) - 1
    # What it once refused is not for ever: it is asked again, and about nothing else.
    fake.answer = serve
    spent = json.loads((tmp_path / "study" / "manifest.json").read_text())["calls_usd"]
    calls = len(fake.calls)
    assert run(task, out=tmp_path / "study").document["finalists"][0]["items"] == len(test) - 1
    assert len(fake.calls) == calls
    again = run(task, out=tmp_path / "study", fresh="judge")
    assert again.document["finalists"][0]["items"] == len(test)
    assert {call["model"] for call in fake.calls[calls:]} == {"judge"}
    assert all(words in str(call["messages"]) for call in fake.calls[calls:])
    assert "could not grade" not in " ".join(again.document["caveats"])
    # what was paid for a useless reply stays paid for
    (line,) = [note for note in again.notes if note.startswith(f"{fake.url}#judge")]
    assert json.loads((tmp_path / "study" / "manifest.json").read_text())["calls_usd"] > spent
    assert f"{sum(call['model'] == 'judge' for call in fake.calls):,} calls" in line


def test_a_judge_is_asked_again_with_a_yes_only(fake: Fake, tmp_path: Path) -> None:
    shop(tmp_path)
    (tmp_path / "task.toml").write_text(
        f'name = "shop"\n[data]\npath = "shop.csv"\ninput = "text"\ntarget = "reply"\n[answer]\n'
        f'kind = "text"\n[score]\nmetric = "judge"\njudge = "{fake.url}#judge"\nrubric = "good"\n'
    )
    words = ["run", str(tmp_path), "--fresh", "judge"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2 and "asked again about every answer" in refused.stderr
    assert "Add --yes" in refused.stderr and fake.calls == []
    (tmp_path / "task.toml").write_text('name = "shop"\n')
    assert "the task has no judge" in CliRunner().invoke(app, words).stderr


@pytest.mark.no_cover  # what it runs, others cover
def test_a_judge_that_grades_itself_is_said(fake: Fake, tmp_path: Path) -> None:
    fake.models = ("tiny", "judge")
    task = judged_task(shop(tmp_path, 60), fake)
    same = task.model_copy(update={"models": (task.score.judge,)})
    fake.answer = lambda messages, body: (
        serve(messages, body)
        if any("</answer>" in turn["content"] for turn in messages)
        else serve(messages, {**body, "model": "tiny"})
    )
    caveats = " ".join(run(same, out=tmp_path / "study").document["caveats"])
    assert "grades its own answers" in caveats


def test_the_judge_is_a_word_that_check_knows(fake: Fake, tmp_path: Path) -> None:
    shop(tmp_path)
    (tmp_path / "task.toml").write_text(
        f'name = "shop"\n[data]\npath = "shop.csv"\ninput = "text"\ntarget = "reply"\n[answer]\n'
        f'kind = "text"\n[score]\nmetric = "judge"\njudge = "{fake.url}#judge"\nrubric = "good"\n'
        f'[[models]]\nname = "{fake.url}#tiny"\n'
    )
    outcome = CliRunner().invoke(app, ["check", str(tmp_path / "task.toml")])
    assert outcome.exit_code == 0, outcome.output
