"""What `make demo` shows: the demo folder goes in, and its questions are answered from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo_data import COLLECTION, DemoFolder, ingest, tour_questions
from orrery import Client
from tests.conftest import Platform

pytestmark = pytest.mark.integration


def test_tour_questions_are_answered_with_the_right_document_cited(
    platform: Platform, tmp_path: Path
) -> None:
    folder = DemoFolder.below(tmp_path)
    with Client(platform.grpc_target) as client:
        report = ingest(client, folder)
        assert not report.failed
        assert not report.skipped
        questions = tour_questions(folder)
        assert [question.answer is None for question in questions] == [False] * 4 + [True]
        for question in questions:
            answer = client.ask(question.text, collection=COLLECTION)
            if question.answer is None:
                assert answer.abstained
                assert answer.text == "The documents do not say."
                assert not answer.citations
            else:
                assert answer.text == question.answer
                assert {cited.document_id for cited in answer.citations} == {question.document_id}
        again = ingest(client, folder)
        assert sorted(again.unchanged) == sorted((*report.added, *report.unchanged))
