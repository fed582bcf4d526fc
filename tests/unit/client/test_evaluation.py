"""The measures against cases made by hand and scikit-learn; data sets; the commands."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

import orrery as client_package
from orrery.evaluation.answers import exact_match, token_f1
from orrery.evaluation.datasets import (
    Question,
    RetrievalCase,
    load_questions,
    load_retrieval,
)
from orrery.evaluation.rag import Outcome, score_answers
from orrery.evaluation.rankings import ndcg_at, recall_at, reciprocal_rank_at
from orrery.evaluation.retrieval import score_rankings
from orrery.plots.bars import plot_bars
from orrery.plots.files import check_plot
from tests.unit.client.command import orrery
from tests.unit.client.fake_retrieval import FakePlatform

RANKING = ["c", "a", "x", "b"]


@pytest.mark.parametrize(
    ("k", "relevant", "expected"),
    [(1, ["a"], 0), (2, ["a"], 1), (2, ["a", "b"], 0.5), (10, ["a", "b", "z"], 2 / 3)],
)
def test_recall_is_the_share_that_was_found(k: int, relevant: list[str], expected: float) -> None:
    assert recall_at(k, RANKING, relevant) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("k", "relevant", "expected"),
    [(10, ["a", "b"], 1 / 2), (10, ["c"], 1), (3, ["b"], 0), (10, ["z"], 0)],
)
def test_reciprocal_rank_is_that_of_the_first(k: int, relevant: list[str], expected: float) -> None:
    assert reciprocal_rank_at(k, RANKING, relevant) == expected


def test_ndcg_of_one_document_at_rank_two_is_one_over_log_three() -> None:
    assert ndcg_at(10, RANKING, ["a"]) == pytest.approx(1 / math.log2(3))
    assert ndcg_at(10, ["a", "b"], ["a", "b"]) == 1
    assert ndcg_at(10, [], ["a"]) == 0


@settings(deadline=None)
@given(
    order=st.permutations([f"d{i}" for i in range(12)]),
    relevant=st.sets(st.integers(0, 11), min_size=1),
    k=st.integers(1, 12),
)
def test_ndcg_is_scikit_learns(order: list[str], relevant: set[int], k: int) -> None:
    wanted = {f"d{i}" for i in relevant}
    truth = np.array([[float(document in wanted) for document in order]])
    scores = np.array([[float(-rank) for rank in range(len(order))]])
    expected = ndcg_score(truth, scores, k=k)
    assert ndcg_at(k, order, wanted) == pytest.approx(expected)


def test_scores_of_rankings_are_averages() -> None:
    cases = [RetrievalCase("q", ("a",)), RetrievalCase("r", ("c",))]
    scores = score_rankings("dense", [RANKING, RANKING], cases)
    assert (scores.recall_at_1, scores.recall_at_5, scores.mrr_at_10) == (0.5, 1, 0.75)
    assert scores.ndcg_at_10 == pytest.approx((1 + 1 / math.log2(3)) / 2)


@pytest.mark.parametrize(
    ("answer", "right", "same", "f1"),
    [
        ("The U.S. Navy!", "us navy", True, 1),
        ("Tamir  Osker.", "tamir osker", True, 1),
        ("Tamir Osker of Vale", "Tamir Osker", False, 2 * 0.5 / 1.5),
        ("nobody", "Tamir Osker", False, 0),
        ("", "Tamir", False, 0),
        ("the", "a", True, 1),
        ("red red", "red", False, 2 / 3),
        ("1,234", "1234", True, 1),
        ("$5 = «five»", "5 five", True, 1),
    ],
)
def test_answers_are_compared_as_those_of_squad(
    answer: str, right: str, same: bool, f1: float
) -> None:
    assert exact_match(answer, right) is same
    assert token_f1(answer, right) == pytest.approx(f1)


@settings(deadline=None)
@given(st.text(), st.text())
def test_f1_is_symmetric_and_one_for_the_same(one: str, other: str) -> None:
    assert token_f1(one, other) == pytest.approx(token_f1(other, one))
    assert 0 <= token_f1(one, other) <= 1
    assert token_f1(one, one) == 1


def outcome(
    answer: str | None, text: str, *cited: str, abstained: bool = False, kind: str = ""
) -> Outcome:
    return Outcome(Question("q", answer, "gold", kind), text, abstained, cited, 0.1)


def test_scores_of_answers_are_as_counted_by_hand() -> None:
    scores = score_answers(
        [
            outcome("Osker", "Osker", "gold"),
            outcome("Osker", "Osker", "gold", "other"),
            outcome("Tamir Osker", "Osker", "other"),
            outcome("Osker", "The documents do not say.", abstained=True),
            outcome(None, "Osker", "other", kind="missing-fact"),
            outcome(None, "no", abstained=True, kind="missing-fact"),
            outcome(None, "no", abstained=True, kind="missing-entity"),
        ]
    )
    assert (scores.num_questions, scores.num_answerable, scores.num_errors) == (7, 4, 0)
    assert scores.exact_match == 0.5
    assert scores.token_f1 == pytest.approx((1 + 1 + 2 / 3 + 0) / 4)
    assert scores.false_abstention == 0.25
    assert scores.abstention == pytest.approx(2 / 3)
    assert scores.abstention_by_kind == {"missing-entity": 1.0, "missing-fact": 0.5}
    assert scores.citation_precision == 0.5
    assert scores.citation_recall == 0.5


def test_scores_without_a_kind_of_questions_are_none() -> None:
    scores = score_answers([outcome(None, "", abstained=True)])
    assert (scores.exact_match, scores.citation_precision, scores.abstention) == (None, None, 1)


def test_error_counts_as_a_wrong_answer() -> None:
    failed = Outcome(Question("q", "the", "gold"), "", False, (), 0.1, "OVERLOADED: full")
    scores = score_answers([failed])
    assert (scores.exact_match, scores.token_f1, scores.num_errors) == (0, 0, 1)


SQUAD = {
    "version": "1",
    "data": [
        {
            "title": "The_Veloria",
            "paragraphs": [
                {"context": "Veloria captain is Osker", "qas": [{"question": "Veloria captain"}]},
                {
                    "context": "the harbour of the town",
                    "qas": [{"question": "harbour"}, {"question": "zebra"}],
                },
            ],
        }
    ],
}


def test_squad_makes_a_document_of_each_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(SQUAD))
    dataset = load_retrieval(path)
    assert [document.content for document in dataset.documents] == [
        "Veloria captain is Osker",
        "the harbour of the town",
    ]
    assert dataset.documents[0].title == "The Veloria"
    assert dataset.cases[1].relevant == (dataset.documents[1].id,)


def test_lines_become_queries_and_questions(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"query": "a", "relevant": ["x", "y"]}\n\n')
    assert load_retrieval(path).cases == (RetrievalCase("a", ("x", "y")),)
    path.write_text('{"question": "a", "answer": null, "kind": "k"}\n{"question":"b","answer":"c"}')
    assert load_questions(path) == (Question("a", None, "", "k"), Question("b", "c"))
    path.write_text('\ufeff{"question": "a\u2028b", "answer": "c\x85"}\r\n', encoding="utf-8")
    assert load_questions(path) == (Question("a\u2028b", "c\x85"),)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "no questions"),
        ("not json", ":1: expected a JSON object"),
        ('{"a": 1}', ":1: expected"),
        ('{"question": 3, "answer": "x"}', ":1: expected"),
        ('{"query": "q", "relevant": []}', ":1: expected"),
        ('{"query": "q", "relevant": "x", "question": "q"}', ":1: expected"),
    ],
)
def test_data_set_that_is_none_is_refused_with_the_line(
    tmp_path: Path, content: str, told: str
) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text(content)
    for load in (load_retrieval, load_questions):
        with pytest.raises(client_package.InvalidRequestError) as caught:
            load(path)
        assert told in caught.value.message
        assert caught.value.field == "dataset"


def test_broken_squad_and_missing_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    path.write_text('{"data": [{"paragraphs": [{"qas": []}]}]}')
    for wrong in (path, tmp_path / "absent"):
        with pytest.raises(client_package.InvalidRequestError):
            load_retrieval(wrong)


@pytest.fixture
def target(platform: FakePlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_TARGET", platform.target)
    monkeypatch.setenv("COLUMNS", "120")
    platform.retrieval.make("docs", veloria="The captain who commands the Veloria is Osker.")


async def test_eval_retrieval_of_squad_leaves_no_collection(
    platform: FakePlatform, target: None, tmp_path: Path
) -> None:
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(SQUAD))
    outcome = await orrery(
        "eval", "retrieval", "--dataset", str(path), "--plot", str(tmp_path / "r.svg")
    )
    assert outcome.exit_code == 0
    rows = {line.split()[0]: line.split() for line in outcome.stdout.splitlines()}
    assert set(rows) == {"MODE", "sparse", "dense", "hybrid"}
    assert rows["hybrid"][1:4] == ["0.6667"] * 3  # the zebra is nowhere
    assert (tmp_path / "r.svg").read_text().lstrip().startswith("<?xml")
    assert set(platform.retrieval.made) == {"docs"}
    sent = platform.retrieval.calls("SearchBatchRequest")[0].options
    assert (sent.k, sent.max_per_document) == (10, 1)


async def test_eval_retrieval_of_lines_asks_the_collection(
    platform: FakePlatform, target: None, tmp_path: Path
) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text('{"query": "veloria", "relevant": ["veloria"]}')
    outcome = await orrery(
        "eval", "retrieval", "--dataset", str(path), "-c", "docs", "--mode", "sparse", "--json"
    )
    (scores,) = json.loads(outcome.stdout)
    assert (scores["mode"], scores["ndcg_at_10"]) == ("sparse", 1)
    missing = await orrery("eval", "retrieval", "--dataset", str(path), "-c", "nowhere")
    assert missing.exit_code != 0


async def test_eval_rag_measures_answers(
    platform: FakePlatform, target: None, tmp_path: Path
) -> None:
    path = tmp_path / "questions.jsonl"
    rows = [
        {"question": "Who commands the Veloria?", "answer": "Osker", "document_id": "veloria"},
        {"question": "What colour?", "answer": None, "kind": "missing-fact"},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    command = ("eval", "rag", "--dataset", str(path), "-c", "docs", "-k", "4")
    outcome = await orrery(*command, "--plot", str(tmp_path / "rag.png"))
    assert outcome.exit_code == 0
    assert "exact match                          100.0%" in outcome.stdout
    assert "missing-fact" in outcome.stdout
    assert (tmp_path / "rag.png").stat().st_size > 1000
    report = json.loads((await orrery(*command, "--json")).stdout)
    assert report["scores"]["citation_precision"] == 1
    assert report["outcomes"][0]["cited"] == ["veloria"]
    assert platform.rag.seen[0][1].options.k == 4


async def test_eval_rag_of_no_collection_ends_at_the_first_question(
    platform: FakePlatform, target: None, tmp_path: Path
) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n' * 50)
    outcome = await orrery("eval", "rag", "--dataset", str(path), "-c", "nowhere")
    assert outcome.exit_code == 2
    assert "no such collection" in outcome.stderr
    assert len(platform.rag.seen) == 1


async def test_eval_rag_where_nobody_answers_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORRERY_TARGET", "127.0.0.1:1")
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n')
    outcome = await orrery("eval", "rag", "--dataset", str(path), "--timeout", "1")
    assert outcome.exit_code == 3
    assert "is the platform running?" in outcome.stderr


async def test_eval_rag_without_documents_asks_the_bare_model(
    server: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tests.unit.client.scripted import ScriptedServer, tokens

    assert isinstance(server, ScriptedServer)
    monkeypatch.setenv("ORRERY_TARGET", server.target)
    server.on("Generate", tokens("Os", "ker"))
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "q", "answer": "Osker"}\n{"question": "r", "answer": "x"}\n')
    outcome = await orrery("eval", "rag", "--dataset", str(path), "--without-documents", "--json")
    assert json.loads(outcome.stdout)["scores"]["exact_match"] == 0.5
    asked = server.calls("Generate")[0].request
    assert asked.prompt.chat.messages[0].content == "q"
    assert asked.sampling.temperature == 0


def test_plot_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(client_package.InvalidRequestError, match=r"\.png"):
        check_plot(tmp_path / "x.docx", "--plot")
    with pytest.raises(client_package.InvalidRequestError, match="no folder"):
        check_plot(tmp_path / "absent" / "x.png", "--plot")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(client_package.InvalidRequestError, match="Is a directory"):
        plot_bars(tmp_path / "folder.png", "t", ["a"], {"s": [0.5]})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(client_package.InvalidRequestError, match="pip install matplotlib"):
        plot_bars(tmp_path / "x.png", "t", ["a"], {"s": [0.5]})
