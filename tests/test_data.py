from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from tunepoint import Example, Task, prepare
from tunepoint.data.audit import doubtful_labels, personal_data, thin_labels
from tunepoint.data.dedupe import deduplicate, link_near_duplicates, normalize
from tunepoint.data.examples import fingerprint, read_examples
from tunepoint.data.rows import read_rows
from tunepoint.data.split import assign_clusters, split, split_given_parts
from tunepoint.errors import DataError, MissingExtra, TaskError
from tunepoint.task.columns import Columns

COLUMNS = Columns(("text",), "label")


def csv_file(folder: Path, text: str, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def example(number: int, text: str, target: str = "a", group: str | None = None) -> Example:
    return Example(f"r{number}", text, target, group)


def test_csv_with_quotes_semicolons_and_a_mark_of_order(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufefftext;label\n"two\nlines";x\nplain;y\n'.encode())
    examples, dropped = read_examples(path, COLUMNS)
    assert [(e.id, e.input, e.target) for e in examples] == [
        ("a.csv:2", "two\nlines", "x"),
        ("a.csv:4", "plain", "y"),
    ]
    assert dropped == []


def test_rows_without_input_or_target_are_dropped_and_named(tmp_path: Path) -> None:
    examples, dropped = read_examples(csv_file(tmp_path, "text,label\n,x\nb,\nc,z\n"), COLUMNS)
    assert len(examples) == 1
    assert [(d.id, d.reason) for d in dropped] == [("a.csv:2", "empty input"), ("a.csv:3", "empty target")]


def test_several_input_columns_are_named_in_the_input(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "subject,body,label,who\nHi,There,x,me\n")
    columns = Columns(("subject", "body"), "label", group="who", slice="label", date="who", id="who")
    example = read_examples(path, columns)[0][0]
    assert example.input == "subject: Hi\nbody: There"
    assert (example.id, example.group, example.slice) == ("me", "me", "x")


def test_jsonl_chat_and_parquet(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": {"k": 1}}, {"text": "b", "label": None}]
    path = csv_file(tmp_path, "\n".join(json.dumps(row) for row in rows) + "\n\n", "a.jsonl")
    examples, dropped = read_examples(path, COLUMNS)
    assert examples[0].target == '{"k": 1}'
    assert dropped[0].id == "a.jsonl:2"
    chat = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "a"},
        ]
    }
    path = csv_file(tmp_path, json.dumps(chat), "chat.jsonl")
    assert dict(next(read_rows(path))[1]) == {"input": "u", "target": "a", "system": "s"}
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table({"text": ["x"], "label": ["y"]}), tmp_path / "a.parquet")
    assert read_examples(tmp_path / "a.parquet", COLUMNS)[0][0].input == "x"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "text,label\n", "no row has both"),
        ("a.csv", "txt,label\na,b\n", "no column 'text'; did you mean 'txt'"),
        ("a.csv", "text,label\na,b,c\n", "a.csv:2: 3 fields where the header has 2"),
        ("a.csv", "text,label\na\n", "a.csv:2: 1 field where the header has 2; add the missing ones"),
        ("a.csv", 'text,label\n"a,b\n', "quote left open"),
        ("a.jsonl", "{not json}\n", "a.jsonl:1: not JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: expected one JSON object"),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "x"}]}', "no assistant message"),
        ("a.jsonl", '{"messages": ["x"]}', "needs a role and a text"),
        ("a.xlsx", "", "cannot read files that end in '.xlsx'"),
    ],
)
def test_bad_files_get_an_error_that_names_the_place(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_examples(csv_file(tmp_path, text, name), COLUMNS)


def test_a_missing_file_a_bad_byte_and_a_repeated_id(tmp_path: Path) -> None:
    csv_file(tmp_path, "text,label\na,b\n", "messages.csv")
    with pytest.raises(DataError, match=r"did you mean 'messages\.csv'"):
        read_examples(tmp_path / "mesages.csv", COLUMNS)
    with pytest.raises(DataError, match="empty or missing"):
        read_examples(tmp_path / "nowhere" / "a.csv", COLUMNS)
    path = tmp_path / "latin.csv"
    path.write_bytes("text,label\ncafé,b\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv:2: byte 0xe9 is not UTF-8"):
        read_examples(path, COLUMNS)
    path = csv_file(tmp_path, "text,label,id\na,b,1\nc,d,1\n")
    with pytest.raises(DataError, match="'1' is on line 2 as well"):
        read_examples(path, Columns(("text",), "label", id="id"))


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"needs pyarrow: pip install 'tunepoint\[parquet\]'") as missing:
        read_examples(csv_file(tmp_path, "", "a.parquet"), COLUMNS)
    assert missing.value.extra == "parquet"
    assert str(pickle.loads(pickle.dumps(missing.value))) == str(missing.value)


def test_duplicates_contradictions_and_twins() -> None:
    long = "the sensor in the back room stopped sending readings on friday evening"
    clean = deduplicate(
        [
            example(1, "Hello there!"),
            example(2, "hello THERE"),
            example(3, "which?", "a"),
            example(4, "Which", "b"),
            example(5, long),
            example(6, long + " again"),
            example(7, "other"),
        ]
    )
    assert [e.id for e in clean.kept] == ["r1", "r5", "r6", "r7"]
    assert {d.id: d.reason for d in clean.dropped} == {
        "r2": "copy of r1",
        "r3": "contradicts r4",
        "r4": "contradicts r3",
    }
    assert clean.contradictions[0].targets == ("a", "b")
    assert clean.near_duplicates == ((1, 2),)


def test_near_twins_agree_with_all_pairs_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(40)]
    texts = [" ".join(rng.choice(words, 12)) for _ in range(60)]
    texts += [text + " extra" for text in texts[:10]]

    def shingles(text: str) -> set[str]:
        plain = normalize(text)
        return {plain[i : i + 4] for i in range(len(plain) - 3)}

    sets = [shingles(text) for text in texts]
    expected = {
        (i, j)
        for j in range(len(sets))
        for i in range(j)
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= 0.8
    }
    assert set(link_near_duplicates(texts)) == expected
    assert len(expected) >= 10


def test_personal_data_is_found_by_kind_and_never_repeated() -> None:
    findings = personal_data(
        [
            example(1, "write to jo.doe+x@example.co.uk please"),
            example(2, "call 020 7946 0182 or not"),
            example(3, "card 4111 1111 1111 1111"),
            example(4, "IBAN DE89 3704 0044 0532 0130 00"),
            example(5, "order KW-64418 of 2026-03-14 for 12 sensors, error 404"),
        ]
    )
    assert [(f.id, f.kind) for f in findings if f.id != "r4"] == [
        ("r1", "e-mail address"),
        ("r2", "phone number"),
        ("r3", "payment card"),
    ]
    assert ("r4", "bank account") in [(f.id, f.kind) for f in findings]


def test_a_planted_wrong_label_is_the_most_doubtful() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(-2, 1, (40, 3)), rng.normal(2, 1, (40, 3))])
    examples = [example(i, str(i), "left" if i < 40 else "right") for i in range(80)]
    examples[3] = example(3, "3", "right")
    doubts = doubtful_labels(examples, features.astype(np.float32))
    assert (doubts[0].id, doubts[0].suggestion) == ("r3", "left")
    assert len(doubts) < 6
    assert doubtful_labels(examples[:2], features[:2].astype(np.float32)) == []


def test_thin_labels() -> None:
    examples = [example(i, str(i), "many") for i in range(30)] + [example(99, "x", "few")]
    assert thin_labels(examples) == {"few": 1}


def test_a_split_keeps_groups_and_twins_whole_and_labels_in_proportion() -> None:
    examples = [
        example(i, f"{i * 7919:x} {i * 104729:x} {i * 15485863:x}", "ab"[i % 2], f"g{i // 3}")
        for i in range(600)
    ]
    dealt = split(examples, [(0, 599)], (0.6, 0.15, 0.25), np.random.default_rng(0))
    assert not dealt.certificate.shared_groups and not dealt.certificate.twins
    sizes = [len(part) / 600 for part in (dealt.train, dealt.dev, dealt.test)]
    assert sizes == pytest.approx([0.6, 0.15, 0.25], abs=0.03)
    for part in (dealt.train, dealt.dev, dealt.test):
        assert np.mean([e.target == "a" for e in part]) == pytest.approx(0.5, abs=0.05)
    groups = [{e.group for e in part} for part in (dealt.train, dealt.dev, dealt.test)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert dealt.clusters["r0"] == dealt.clusters["r599"]
    again = split(examples, [(0, 599)], (0.6, 0.15, 0.25), np.random.default_rng(0))
    assert again == dealt
    other = split(examples, [(0, 599)], (0.6, 0.15, 0.25), np.random.default_rng(1))
    assert other.test != dealt.test


def test_families_join_what_is_linked() -> None:
    examples = [example(0, "a", group="x"), example(1, "b"), example(2, "c", group="x"), example(3, "d")]
    assert assign_clusters(examples, [(2, 3)]) == ["r0", "r1", "r0", "r0"]


def test_too_few_groups_cannot_be_split() -> None:
    examples = [example(i, f"t{i}", group="one") for i in range(50)]
    with pytest.raises(DataError, match="50 examples in 1 groups"):
        split(examples, [], (0.6, 0.2, 0.2), np.random.default_rng(0))
    few = [example(i, f"t{i}") for i in range(4)]
    with pytest.raises(DataError, match="leaves nothing to train on"):
        split(few, [], (0.1, 0.45, 0.45), np.random.default_rng(0))


def test_given_parts_are_kept_and_their_contamination_is_certified() -> None:
    text = "my invoice of march shows the wrong address and the wrong amount of money"
    train = [example(i, f"training text {i} {'x' * i}", "ab"[i % 2], f"g{i}") for i in range(30)]
    train.append(example(50, text, "a", "shared"))
    others = ["something else", "where is it", "no thanks", "call me back today"]
    test = [Example("t1", text + "!!", "a", "shared")]
    test += [Example(f"o{i}", other, "b") for i, other in enumerate(others)]
    test.append(Example("o9", others[0] + "!", "b"))
    dealt = split_given_parts({"train": train, "test": test}, (0.6, 0.2, 0.2), np.random.default_rng(0))
    assert dealt.test == tuple(test)
    assert len(dealt.train) + len(dealt.dev) == 31
    assert dealt.certificate.shared_groups == 1
    assert dealt.certificate.twins == {"t1": "r50"}
    assert dealt.clusters["o0"] == dealt.clusters["o9"] != dealt.clusters["o1"]
    with pytest.raises(DataError, match=r"the test set has 2 examples in 1 .* groups, but needs at least 5"):
        split_given_parts(
            {"train": train, "test": [test[1], test[5]]}, (0.6, 0.2, 0.2), np.random.default_rng(0)
        )
    with pytest.raises(DataError, match="the test set is empty"):
        split_given_parts({"train": train, "test": []}, (0.6, 0.2, 0.2), np.random.default_rng(0))


def task(folder: Path, **sections: object) -> Task:
    return Task.parse(
        {"name": "t", "data": {"path": "a.csv", "input": "text", "target": "label"}, **sections},
        folder=folder,
    )


def rows(count: int, labels: str = "ab") -> str:
    lines = [f"unique message {i} {'xyz' * (i % 7)},{labels[i % len(labels)]}" for i in range(count)]
    return "text,label\n" + "\n".join(lines) + "\n"


def test_prepare_checks_the_labels(tmp_path: Path) -> None:
    csv_file(tmp_path, rows(60))
    prepared = prepare(task(tmp_path), 0)
    assert prepared.audit.kept == len(prepared.examples)
    with pytest.raises(DataError, match=r"a.csv:3: label 'b' is not in \[answer.labels\]"):
        prepare(task(tmp_path, answer={"labels": {"a": "", "bb": ""}}), 0)
    csv_file(tmp_path, rows(60, "a"))
    with pytest.raises(DataError, match="have the label 'a'"):
        prepare(task(tmp_path), 0)
    csv_file(tmp_path, "text,label\n" + "".join(f"m {i},label{i}\n" for i in range(30)))
    with pytest.raises(DataError, match="do not look like labels"):
        prepare(task(tmp_path), 0)
    with pytest.raises(TaskError, match="no \\[data\\]"):
        prepare(Task.parse({"name": "t"}), 0)


def test_prepare_with_parts_given(tmp_path: Path) -> None:
    csv_file(tmp_path, rows(60), "train.csv")
    unseen = ["a cold morning", "two dogs bark", "red paint dries", "my tea is hot", "stop it now"]
    rest = "".join(f"{text},{'ab'[i % 2]}\n" for i, text in enumerate(unseen))
    csv_file(tmp_path, "text,label\n" + rest, "test.csv")
    files = {"train": "train.csv", "test": "test.csv", "input": "text", "target": "label"}
    prepared = prepare(Task.parse({"name": "t", "data": files}, folder=tmp_path), 0)
    assert [e.id for e in prepared.split.test][:2] == ["test/test.csv:2", "test/test.csv:3"]


def test_fingerprint_changes_with_any_field() -> None:
    examples = [example(1, "a")]
    assert fingerprint(examples) == fingerprint([example(1, "a")])
    assert fingerprint(examples) != fingerprint([example(1, "b")])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,text,label\na,b,c\n", "columns 1 and 2 of 3 are both named 'text'"),
        ("a.csv", 'text,label\na b,c\n"x" y,b\n', "a.csv:3: "),
        ("a.csv", '"text;a",label\nhello,x\n"bye,y\n', "a.csv:3: .*quote"),
        ("a.jsonl", '{"messages": null}\n', "a.jsonl:1: messages is None"),
        ("a.jsonl", '{"text": "\\ud800", "label": "a"}\n', "a.jsonl:1: cannot be used"),
        ("a.jsonl", '{"text": ' + "[" * 100_000 + "}\n", "a.jsonl:1: "),
        ("a.parquet", "nothing", "not a Parquet file"),
    ],
)
def test_damaged_files_are_named_with_their_place(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        list(read_rows(path))


def test_a_folder_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(DataError, match="expected a file, found a folder"):
        list(read_rows(tmp_path / "a.csv"))


def test_delimiters_are_counted_outside_quotes(tmp_path: Path) -> None:
    path = csv_file(tmp_path, '"message; or body; of it",label\nhello,x\n')
    assert [dict(row) for _, row in read_rows(path)] == [{"message; or body; of it": "hello", "label": "x"}]


def test_labels_that_differ_in_case_only_are_an_error(tmp_path: Path) -> None:
    csv_file(tmp_path, rows(60, labels="aAb"))
    with pytest.raises(DataError, match="'A' and 'a' differ only in upper and lower case"):
        prepare(task(tmp_path), 0)


def test_declared_labels_without_examples_are_thin(tmp_path: Path) -> None:
    csv_file(tmp_path, rows(60))
    declared = {"kind": "label", "labels": {"a": "", "b": "", "ghost": ""}}
    prepared = prepare(task(tmp_path, answer=declared), 0)
    assert prepared.audit.thin == {"ghost": 0}


def test_an_id_stands_in_one_file(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        csv_file(
            tmp_path, "id,text,label\n" + "".join(f"{i},text {i},{'ab'[i % 2]}\n" for i in range(30)), name
        )
    data = {"train": "train.csv", "test": "test.csv", "input": "text", "target": "label", "id": "id"}
    with pytest.raises(DataError, match="the id '0' is in the train file and in the test file"):
        prepare(Task.parse({"name": "t", "data": data}, folder=tmp_path), 0)


def test_copies_of_one_template_are_linked_once() -> None:
    texts = [f"Your parcel number {i} is on its way and will arrive tomorrow before noon" for i in range(400)]
    links = link_near_duplicates(texts)
    assert len(links) == 399
    examples = [Example(str(i), text, "ab"[i % 2]) for i, text in enumerate(texts)]
    with pytest.raises(DataError, match=r"near duplicates \(399 links\)"):
        split(examples, links, (0.6, 0.2, 0.2), np.random.default_rng(0))
