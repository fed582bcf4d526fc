"""Prompt ensembles and probabilities, by numbers small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orrery.v1 import embedding_pb2 as pb
from services.embedding import messages
from services.embedding.config import EmbeddingConfig, PicturesConfig
from services.embedding.labels import (
    BestLabels,
    best_labels,
    check_answer,
    check_labels,
    ensemble,
    probabilities,
    prompts,
)
from services.runtime.errors import InvalidRequest

CONFIG = PicturesConfig(max_labels=4, max_label_prompts=6, max_label_bytes=8)


def test_prompts_are_each_label_in_each_template_and_nothing_else_is_replaced() -> None:
    assert prompts(["a {0}", "b"], ["x {}", "{} y"]) == ["x a {0}", "a {0} y", "x b", "b y"]


def test_a_labels_vector_is_the_mean_of_its_normalised_prompts() -> None:
    vectors = np.array([[2.0, 0.0], [0.0, 0.5], [3.0, 4.0], [3.0, 4.0]], dtype=np.float32)
    made = ensemble(vectors, 2)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(made, [[half, half], [0.6, 0.8]], atol=1e-6)


def test_probabilities_are_the_softmax_of_scaled_cosines() -> None:
    cosines = np.random.default_rng(0).uniform(-1, 1, (3, 7)).astype(np.float32)
    want = torch.softmax(100.0 * torch.from_numpy(cosines).double(), dim=-1)
    np.testing.assert_allclose(probabilities(cosines, 100.0), want.numpy(), rtol=1e-9)
    extreme = probabilities(np.array([[1.0, -1.0]], dtype=np.float32), 1e4)
    np.testing.assert_allclose(extreme, [[1.0, 0.0]])


@pytest.mark.parametrize(
    ("labels", "templates", "field"),
    [
        (["a"], ["{}"], "labels"),
        (list("abcde"), ["{}"], "labels"),
        (list("abcd"), ["{}", "x {}"], "labels"),
        (["a", ""], ["{}"], "labels[1]"),
        (["a", "a"], ["{}"], "labels[1]"),
        (["a", "ä" * 5], ["{}"], "labels[1]"),
        (["a", "b"], ["{}", "x {}", "y {}", "z {}"], "templates"),
        (["a", "b"], ["{}", "{}{}"], "templates[1]"),
        (["a", "b"], ["x"], "templates[0]"),
    ],
)
def test_labels_out_of_bounds_are_refused_by_name(
    labels: list[str], templates: list[str], field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_labels(labels, templates, CONFIG)
    assert refused.value.field == field


def test_best_labels_are_in_order_and_equal_ones_in_theirs() -> None:
    cosines = np.array([[0.1, 0.3, 0.2, 0.3], [0.4, 0.0, 0.0, 0.1]], dtype=np.float32)
    best = best_labels(cosines, 10.0, 3)
    assert best.indices.tolist() == [[1, 3, 2], [0, 3, 1]]
    np.testing.assert_array_equal(best.cosines, [cosines[0, [1, 3, 2]], cosines[1, [0, 3, 1]]])
    shares = probabilities(cosines, 10.0)
    np.testing.assert_array_equal(best.probabilities, [shares[0, [1, 3, 2]], shares[1, [0, 3, 1]]])
    assert best_labels(cosines, 10.0, 99).indices.shape == (2, 4)


def test_more_scores_than_an_answer_may_hold_are_refused_by_name() -> None:
    config = PicturesConfig(max_images=3, max_scores=6)
    check_answer(3, ["a", "b", "c"], 2, config)
    check_answer(2, ["a", "b", "c"], 9, config)
    with pytest.raises(InvalidRequest) as refused:
        check_answer(3, ["a", "b", "c"], 3, config)
    assert refused.value.field == "top_n"


def test_longer_labels_than_an_answer_may_hold_are_refused_by_name() -> None:
    config = PicturesConfig()
    labels = [f"{number:02}" + "x" * 1022 for number in range(40)] + ["short"]
    check_answer(256, labels, 32, config)
    with pytest.raises(InvalidRequest) as refused:
        check_answer(256, labels, 33, config)
    assert refused.value.field == "top_n"


def test_the_largest_answer_can_be_sent() -> None:
    config = PicturesConfig(max_labels=2048, max_scores=1 << 18)
    num_pictures, num_labels = 128, 2048
    labels = [f"{number:032}" for number in range(num_labels)]
    check_answer(num_pictures, labels, num_labels, config)
    shape = (num_pictures, num_labels)
    indices = np.broadcast_to(np.arange(num_labels), shape)
    best = BestLabels(indices, np.ones(shape), np.ones(shape, np.float32))
    response = pb.ClassifyResponse(results=messages.classifications(best, labels))
    assert 8 << 20 < response.ByteSize() < 15 << 20
    assert response.results[-1].scores[-1] == pb.LabelScore(
        index=num_labels - 1, label=labels[-1], probability=1.0, similarity=1.0
    )


def test_limits_that_contradict_each_other_are_refused_at_start() -> None:
    with pytest.raises(ValueError, match="max_waiting_images"):
        PicturesConfig(max_images=9, max_waiting_images=8)
    with pytest.raises(ValueError, match="max_scores"):
        PicturesConfig(max_images=9, max_scores=8)
    with pytest.raises(ValueError, match="max_waiting_bytes"):
        PicturesConfig(max_image_bytes=9, max_waiting_bytes=8)
    with pytest.raises(ValueError, match="label_templates"):
        PicturesConfig(label_templates=("a photo",))
    with pytest.raises(ValueError, match="max_label_prompts"):
        EmbeddingConfig(pictures=PicturesConfig(max_label_prompts=9000))
