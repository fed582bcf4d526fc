"""What `make demo` shows: documents go in and answer questions; pictures are made and found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy import demo_experts, demo_pictures
from deploy.demo_data import COLLECTION, DemoFolder, ingest, tour_questions
from orrery import Client
from services.engine import LLM, SamplingParams
from tests.conftest import REPOSITORY, Platform
from training.images.captions import parse
from training.images.checker import check

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


def test_tour_draws_where_a_text_is_routed(platform: Platform, tmp_path: Path) -> None:
    with Client(platform.grpc_target) as client:
        analysis, drawn = demo_experts.analyze(client, tmp_path)
        assert [layer.layer for layer in analysis.layers] == [0, 1, 2, 3, 4]
        assert all(len(layer.shares) == 8 for layer in analysis.layers)
        with Image.open(drawn) as picture:
            assert min(picture.size) > 400
            assert len(set(picture.convert("RGB").get_flattened_data())) > 50
        shards = client.moe.placement().shards
        assert len(shards) == 2
        assert all(shard.reachable and shard.num_experts for shard in shards)


def test_experts_of_the_platform_say_what_local_ones_say(platform: Platform) -> None:
    local = LLM(REPOSITORY / "models/orrery-moe", dtype="float32", num_threads=1)
    prompts = [question.text for question in tour_questions(DemoFolder.below(platform.data_dir))]
    with Client(platform.grpc_target) as client:
        for prompt in prompts:
            served = client.generate(prompt, model="orrery-moe", max_tokens=24, temperature=0)
            (expected,) = local.generate(prompt, SamplingParams(temperature=0, max_tokens=24))
            assert served.text == expected.outputs[0].text


def test_tour_makes_the_picture_it_asks_for_and_finds_others(
    platform: Platform, tmp_path: Path
) -> None:
    folder = demo_pictures.PictureFolder.below(tmp_path)
    with Client(platform.grpc_target) as client:
        images = demo_pictures.make(client, folder)
        similarities = [image.similarity or 0.0 for image in images]
        assert similarities == sorted(similarities, reverse=True)
        with Image.open(folder.made) as picture:
            verdict = check(np.asarray(picture), parse(demo_pictures.PROMPT))
            assert picture.text["prompt"] == demo_pictures.PROMPT
        assert verdict.right
        assert demo_pictures.classify(client, folder).scores[0].label == demo_pictures.PROMPT

        report = demo_pictures.index(client, folder)
        assert not report.failed
        assert report.num_chunks == len(folder.pictures) == 100
        found = [
            demo_pictures.find(client, drawn.caption).hits[0].chunk.file_name == drawn.name
            for drawn in folder.pictures
        ]
        assert sum(found) >= 90
        by_picture = client.search(
            demo_pictures.COLLECTION, image=folder.gallery / folder.pictures[7].name, k=1
        )
        assert by_picture.hits[0].chunk.file_name == folder.pictures[7].name
        again = demo_pictures.index(client, folder)
        assert len(again.unchanged) == 100
