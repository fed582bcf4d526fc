"""Our scores are those of sentence-transformers' `CrossEncoder.predict`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder

from services.embedding.cross_encoder import PairScorer, ScorerOptions
from services.runtime.model_files import ModelFolderError
from tests.unit.embedding.conftest import save_scorer
from tests.unit.embedding.texts import TEXTS


def predicted(folder: Path, query: str) -> np.ndarray:
    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    scores: np.ndarray = model.predict([(query, text) for text in TEXTS], show_progress_bar=False)
    return scores


@pytest.mark.parametrize("query", ["When did it open?", "long query " * 40])
def test_scores_are_those_of_predict(scorer_folder: Path, query: str) -> None:
    scorer = PairScorer.load(str(scorer_folder), ScorerOptions())
    scores = scorer.score(scorer.tokenize(query, TEXTS))
    want = predicted(scorer_folder, query)
    assert np.ptp(want) > 0.01
    np.testing.assert_allclose(scores, want, atol=1e-5)


def test_scores_do_not_depend_on_the_batch(scorer_folder: Path) -> None:
    scorer = PairScorer.load(str(scorer_folder), ScorerOptions())
    pairs = scorer.tokenize("When?", TEXTS)
    alone = [float(scorer.score([pair])[0]) for pair in pairs]
    np.testing.assert_allclose(scorer.score(pairs), alone, atol=1e-5)


def test_bfloat16_is_close(scorer_folder: Path) -> None:
    scorer = PairScorer.load(str(scorer_folder), ScorerOptions(dtype="bfloat16"))
    scores = scorer.score(scorer.tokenize("When?", TEXTS))
    np.testing.assert_allclose(scores, predicted(scorer_folder, "When?"), atol=0.05)


def test_max_pair_tokens_cuts_the_longer_of_the_two(scorer_folder: Path) -> None:
    scorer = PairScorer.load(str(scorer_folder), ScorerOptions(max_pair_tokens=16))
    pairs = scorer.tokenize("one two three", ["word " * 100])
    assert len(pairs[0].ids) == 16
    assert pairs[0].type_ids.count(0) == 5  # CLS, the query, SEP: whole


def test_more_than_one_score_for_a_pair_is_refused(tmp_path: Path, minilm_folder: str) -> None:
    folder = save_scorer(tmp_path, minilm_folder, num_labels=3)
    with pytest.raises(ModelFolderError, match="one score"):
        PairScorer.load(str(folder), ScorerOptions())
