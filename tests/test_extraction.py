"""The encoder extracts: fields that stand in the input, choices, and what is neither."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from tunepoint import Example, Task, run
from tunepoint.arms.encoder.decoding import best_path
from tunepoint.arms.encoder.extraction import Extractor, SpanTagger
from tunepoint.arms.encoder.fields import Fields
from tunepoint.arms.encoder.json_values import parse_number
from tunepoint.arms.encoder.places import find_places
from tunepoint.arms.encoder.tagging import TagRecipe
from tunepoint.arms.encoder.windows import IGNORED, SHAPES, Words, shape_of
from tunepoint.errors import DataError, ModelError, TaskError
from tunepoint.models.encoder import Encoder
from tunepoint.study.encoder_export import export_encoder
from tunepoint.trials.scorers import json_fields

CITIES = ("Lisbon", "New York", "Oslo", "Kuala Lumpur", "Bern", "Rio")
MEALS = ("lunch", "dinner", "brunch")


def bookings(count: int, seed: int = 0) -> list[Example]:
    """Tables to be booked: a city and a number that stand in the text, and a tone that does not."""
    rng = random.Random(seed)
    examples = []
    for i in range(count):
        city, meal, people = rng.choice(CITIES), rng.choice(MEALS), rng.randrange(2, 12)
        polite = rng.random() < 0.5
        start = "Please could you book" if polite else "Book me"
        text = f"{start} {meal} in {city} for {people} on {rng.randrange(1000, 9999)}"
        target: dict[str, Any] = {
            "place": {"city": city},
            "people": people,
            "tone": "kind" if polite else "curt",
        }
        if meal != "brunch":
            target["meals"] = [meal]
        examples.append(Example(f"b{i}", text, json.dumps(target)))
    return examples


JSON_TASK = Task.parse({"name": "bookings", "instruction": "Extract.", "answer": {"kind": "json"}})
QUICK = TagRecipe(epochs=16, least_steps=0, learning_rate=4e-3)


@pytest.fixture(scope="module")
def fitted(encoder: Encoder) -> Extractor:
    # a part of them begins with words that hold nothing, as long inputs do
    long = [
        replace(e, id=f"long {e.id}", input=f"and so on and so on {e.input}") for e in bookings(30, seed=3)
    ]
    arm = SpanTagger(encoder, QUICK)
    return arm.fit(JSON_TASK, [*bookings(120), *long], np.random.default_rng(0))


# -- fields -------------------------------------------------------------------------------------


def test_fields_are_found_in_the_input_or_chosen_and_the_rest_is_left_out_with_the_reason() -> None:
    examples = [
        replace(
            e,
            target=json.dumps({**json.loads(e.target), "secret": f"x{i}", "rows": [{"a": 1}], "none": None}),
        )
        for i, e in enumerate(bookings(60))
    ]
    fields = Fields.read(examples)
    assert {field.name: (field.many, field.numeric, field.empty) for field in fields.spans} == {
        "meals": (True, False, "absent"),
        "people": (False, True, "absent"),
        "place/city": (False, False, "absent"),
    }
    (tone,) = fields.choices
    assert tone.name == "tone" and tone.choices == ('"curt"', '"kind"')
    assert len(fields.left_out) == 3
    assert any(
        "0 of its 60 values stand in the input, and it has 60 different" in why for why in fields.left_out
    )
    assert any(why == "none is empty in all 60 targets that have it" for why in fields.left_out)
    assert any("lists of objects" in why for why in fields.left_out)


def test_places_and_choices_become_the_target_again() -> None:
    examples = bookings(80)
    fields = Fields.read(examples)
    for example in examples:
        marked = fields.mark(example)
        spans = [(number, place, 1.0) for number, place in sorted(marked.spans, key=lambda span: span[1])]
        assert json.loads(fields.answer(example.input, spans, marked.choices)) == json.loads(example.target)
    assert Fields.parse(json.loads(json.dumps(fields.document()))) == replace(fields, left_out=())


def test_an_empty_field_comes_back_as_the_targets_have_it() -> None:
    for empty, given_ in (("null", None), ("[]", []), ('""', "")):
        examples = [
            Example(str(i), f"order {i} for Anna", json.dumps({"name": "Anna" if i % 2 else given_, "n": i}))
            for i in range(40)
        ]
        fields = Fields.read(examples)
        name = next(number for number, field in enumerate(fields.spans) if field.name == "name")
        assert fields.spans[name].empty == empty
        assert json.loads(fields.answer("order 7", [(1 - name, (6, 7), 0.9)], ())) == {"n": 7, "name": given_}


def test_long_values_hold_short_ones_and_further_places_are_not_learnt_from() -> None:
    def teams(text: str, who: list[str]) -> Example:
        return Example(text, text, json.dumps({"who": who}))

    fields = Fields.read(
        [teams("York beat New York and York", ["New York", "York"]), teams("York", ["York"])]
    )
    text = "York beat New York and York"
    marked = fields.mark(teams(text, ["York", "New York"]))
    assert sorted(place for _, place in marked.spans) == [(0, 4), (10, 18)]
    assert marked.unclear == ((23, 27),)
    tags = Words.of(Encoder.load(), [text]).tags([marked])[0]
    assert tags.tolist() == [1, 0, 1, 2, 0, IGNORED]


def test_places_are_whole_words_whatever_the_spaces_and_the_case() -> None:
    assert find_places("start art  work; ART", "art work") == [(6, 15)]
    assert find_places("start ART", "art") == [(6, 9)] and find_places("start", "art") == []
    assert find_places("see a+b (a+b)", "a+b") == [(4, 7), (9, 12)]
    assert find_places("anything", "  ") == []


@pytest.mark.parametrize("target", ['["a"]', "not json", '"a"'])
def test_a_target_that_is_no_object_is_named(target: str) -> None:
    with pytest.raises(DataError, match="row7: its target is"):
        Fields.read([Example("row7", "a", target)])


def test_nothing_that_can_be_read_is_an_error_that_says_why() -> None:
    examples = [Example(str(i), f"text {i}", json.dumps({"summary": f"other {i} words"})) for i in range(30)]
    with pytest.raises(DataError, match=r"no field of the 30 targets .* summary: 0 of its 30 values stand"):
        Fields.read(examples)


def test_numbers_are_read_as_people_write_them_and_stay_text_where_they_are_none() -> None:
    texts = ("1,500", "1,5", "12,50", "-3", "1.25", "1 000 000", "nan", "infinity", "1,2,3")
    read = [1500, 1.5, 12.5, -3, 1.25, 1000000, "nan", "infinity", "1,2,3"]
    assert [parse_number(text) for text in texts] == read


def test_scripts_without_spaces_have_values_inside_their_words() -> None:
    assert find_places("我想去北京旅行", "北京") == [(3, 5)]
    assert find_places("отправь в Москву", "Моск") == []


def test_a_field_that_is_an_object_only_sometimes_is_left_out_with_the_reason() -> None:
    def car(i: int, value: Any) -> Example:
        return Example(str(i), f"red car {i}", json.dumps({"colour": "red", "size": value}))

    fields = Fields.read([car(0, {"w": 1}), *(car(i, i) for i in range(1, 20))])
    assert any("size is an object in some targets" in why for why in fields.left_out)


def test_long_inputs_take_time_in_proportion(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    whole = encoder.encodings

    class Counted:
        def __init__(self, encoding: Any) -> None:
            self.encoding = encoding

        def __getattr__(self, name: str) -> Any:
            nonlocal reads
            reads += name in ("offsets", "word_ids")  # each builds a list of all tokens
            return getattr(self.encoding, name)

    monkeypatch.setattr(encoder, "encodings", lambda texts: [Counted(original) for original in whole(texts)])
    Words.of(encoder, [" ".join(["word"] * 3_000)])
    assert reads == 2


# -- tagging ------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 2), st.integers(0, 10**6))
def test_the_best_path_is_the_best_of_all_allowed_ones(words: int, fields: int, seed: int) -> None:
    odds = np.random.default_rng(seed).dirichlet(np.ones(2 * fields + 1), words).astype(np.float32)

    def allowed(path: tuple[int, ...]) -> bool:
        return all(
            tag == 0 or tag % 2 == 1 or before in (tag, tag - 1)
            for before, tag in zip((0, *path[:-1]), path, strict=True)
        )

    paths = [p for p in itertools.product(range(2 * fields + 1), repeat=words) if allowed(p)]
    worth = {p: float(np.log(odds[np.arange(words), list(p)]).sum()) for p in paths}
    best = tuple(best_path(odds).tolist())
    assert allowed(best) and worth[best] == pytest.approx(max(worth.values()), abs=1e-4)


@pytest.mark.parametrize(
    ("word", "shape"),
    [
        ("of", "lower"),
        ("Bern", "Capital"),
        ("I", "Capital"),
        ("USA", "UPPER"),
        ("iOS", "mIxed"),
        ("4", "digits"),
        ("(", "other"),
        ("日本", "lower"),
    ],
)
def test_shapes_of_words(word: str, shape: str) -> None:
    assert SHAPES[shape_of(word)] == shape


def test_long_inputs_are_read_in_windows_that_miss_no_word(encoder: Encoder) -> None:
    texts = ["", "one", " ".join(f"word{i}" for i in range(400)), "tab\tand  spaces"]
    words = Words.of(encoder, texts)
    assert [len(places_) for places_ in words.places] == [0, 1, 400, 3]
    for number, text in enumerate(texts):
        mine = [window for window in words.windows if window.text == number]
        assert {word for window in mine for word in window.words} == set(range(len(words.places[number])))
        assert all(len(window.ids) <= 256 for window in mine)
        assert [text[slice(*place)] for place in words.places[number]] == text.split()


def test_a_tagger_learns_extracts_and_is_the_same_after_loading(
    fitted: Extractor, encoder: Encoder, tmp_path: Path
) -> None:
    test = bookings(60, seed=1)
    replies = fitted.answer([example.input for example in test])
    scores = [json_fields(reply.answer or "", e) for reply, e in zip(replies, test, strict=True)]
    assert np.mean(scores) > 0.95
    assert all(reply.confidence is not None and 0 < reply.confidence <= 1 for reply in replies)
    assert fitted.built.examples == 150 and fitted.built.warnings == ()
    paid = replace(fitted, built=replace(fitted.built, teacher_usd=0.5))
    paid.save(tmp_path / "one.safetensors")
    with safe_open(tmp_path / "one.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["tunepoint"])["built"]["asked_usd"] == 0.5
    again = Extractor.load(tmp_path / "one.safetensors", encoder)
    assert again.built == paid.built
    assert [r.text for r in again.answer([e.input for e in test])] == [r.text for r in replies]
    (tmp_path / "two.safetensors").write_bytes(b"\x08" + bytes(20))
    with pytest.raises(ModelError, match=r"two.safetensors: damaged"):
        Extractor.load(tmp_path / "two.safetensors", encoder)


def test_a_value_far_inside_a_long_input_is_found_at_its_place(fitted: Extractor) -> None:
    start = " ".join(["and so on"] * 120)
    text = f"{start} Book me lunch in Oslo for 5 on 4711"
    (tagged,) = fitted.tagged([text])
    cities = [
        text[slice(*place)]
        for field, place, _ in tagged.spans
        if fitted.fields.spans[field].name == "place/city"
    ]
    assert cities == ["Oslo"]
    assert json.loads(fitted.answer([""])[0].text)["tone"] in ("curt", "kind")  # no word, and no fault


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(encoder: Encoder) -> None:
    examples, quick = bookings(40), TagRecipe(epochs=1, least_steps=0)

    def weights(seed: int) -> np.ndarray[Any, Any]:
        arm = SpanTagger(encoder, quick)
        fitted = arm.fit(JSON_TASK, examples, np.random.default_rng(seed))
        return fitted.tagger.tags.weight.detach().numpy()

    first = weights(1)
    assert np.array_equal(first, weights(1)) and not np.array_equal(first, weights(2))


def test_an_answer_that_departs_from_the_schema_says_where(fitted: Extractor) -> None:
    strict = replace(
        fitted, schema={"type": "object", "required": ["people"], "properties": {"people": {"maximum": 1}}}
    )
    (reply,) = strict.answer(["Book me lunch in Oslo for 5 on 4711"])
    assert not reply.format_ok and reply.answer is None and "people: 5 is greater" in (reply.error or "")


def test_few_examples_are_seen_more_often_and_many_less() -> None:
    recipe = TagRecipe()
    assert [recipe.epochs_for(n) for n in (20, 100, 500, 2_000, 14_000, 200_000)] == [40, 40, 13, 6, 6, 1]


# -- in a study ---------------------------------------------------------------------------------


def extraction(folder: Path, **overrides: Any) -> Task:
    lines = [json.dumps({"id": e.id, "text": e.input, "label": json.loads(e.target)}) for e in bookings(160)]
    (folder / "bookings.jsonl").write_text("\n".join(lines) + "\n")
    content = {
        "name": "bookings",
        "instruction": "Extract the booking.",
        "data": {"path": "bookings.jsonl", "input": "text", "target": "label", "id": "id"},
        "answer": {"kind": "json"},
        "traffic": {"queries_per_month": 50_000},
        **overrides,
    }
    return Task.parse(content, folder=folder)


def test_extraction_has_a_tuned_arm_on_a_laptop_beside_what_runs_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunepoint.arms.encoder.extraction.SpanTagger", partial(SpanTagger, recipe=QUICK))
    log = [
        {"input": e.input, "output": json.dumps({"people": json.loads(e.target)["people"]})}
        for e in bookings(160)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, log)) + "\n")
    task = extraction(tmp_path, models=[{"name": "recorded:log.jsonl", "price": {"input": 1, "output": 4}}])
    out = tmp_path / "study"
    result = run(task, out=out)
    assert result.document["winner"] == "span encoder" and result.document["verdict"] == "fine-tune"
    measured = json.loads((out / "measurements.json").read_text())
    assert [row["examples"] for row in measured["curve"]] == [13, 35, 88]  # of five nobody can be trained
    assert {row["name"] for row in measured["not_run"]} >= {"probe", "fine-tuned encoder", "chain of thought"}
    kept = sorted((out / "arms").glob("spans-*.safetensors"))
    assert len(kept) == 3  # one for each seed; parts of the curve are not kept
    exported = export_encoder(task, out, tmp_path / "onnx")
    assert exported.arm == "span encoder" and exported.parity.differing == ()
    assert sorted((out / "arms").glob("spans-*.safetensors")) == kept  # nothing was trained for it
    before = (out / "trials.jsonl").read_bytes()
    run(task, out=out)
    assert (out / "trials.jsonl").read_bytes() == before


def test_extraction_of_fields_that_nobody_can_read_says_so(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [
        {"text": f"{rng.random()} {rng.random()}", "label": {"summary": f"words {i * 7} of nobody"}}
        for i in range(80)
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    log = [{"input": row["text"], "output": json.dumps(row["label"])} for row in rows]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, log)) + "\n")
    data = {"path": "data.jsonl", "input": "text", "target": "label"}
    task = extraction(tmp_path, data=data, models=[{"name": "recorded:log.jsonl"}])
    with pytest.raises(TaskError, match=r"no option can be measured.* summary: 0 of its"):
        run(task, out=tmp_path / "study")


def test_extraction_with_nothing_to_compare_is_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="needs a second option to be compared with"):
        run(extraction(tmp_path), out=tmp_path / "study")
    assert not (tmp_path / "study").exists()
