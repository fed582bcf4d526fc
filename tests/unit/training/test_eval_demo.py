"""Grading: what counts as right, as a needless refusal, and how sure a share is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.card import write_card
from training.eval_demo import FIGURES, Evaluation, Result, _grade, write_evaluation
from training.prompt import REFUSAL
from training.questions import QuestionType, held_out_cases

MODELS = Path(__file__).parents[3] / "models"


def test_exact_answers_are_correct_and_refusals_needless() -> None:
    cases = held_out_cases(QuestionType.ANSWERED, 4)
    right = [case.question.answer for case in cases]
    assert None not in right
    replies = [right[0], REFUSAL, f"{right[2]} indeed", ""]
    assert _grade(cases, replies) == Result(4, correct=1, needless_refusals=1)


def test_only_the_exact_refusal_is_an_abstention() -> None:
    cases = held_out_cases(QuestionType.FACT_ABSENT, 3)
    assert _grade(cases, [REFUSAL, "1874", "The documents"]) == Result(3, 1, 0)


@pytest.mark.parametrize(("correct", "low", "high"), [(500, 0.9924, 1.0), (460, 0.893, 0.941)])
def test_interval_is_wilsons(correct: int, low: float, high: float) -> None:
    assert Result(500, correct, 0).interval == pytest.approx((low, high), abs=1e-3)


def test_card_shows_every_figure(tmp_path: Path) -> None:
    source = MODELS / "orrery-llama"
    for name in ("config.json", "training.json", "model.safetensors"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    results = {figure.name: Result(500, 480, 3) for figure in FIGURES}
    write_evaluation(tmp_path, Evaluation(results, []))
    card = (tmp_path / "README.md").read_text()
    assert card.count("| 96.0 % |") == len(FIGURES)
    assert json.loads((tmp_path / "evaluation.json").read_text()).keys() == {
        figure.name for figure in FIGURES
    }
    assert (tmp_path / "loss_curve.png").stat().st_size > 10_000
    write_card(tmp_path)
    assert (tmp_path / "README.md").read_text() == card


@pytest.mark.parametrize("name", ["orrery-llama", "orrery-gpt"])
def test_committed_model_was_evaluated_on_enough_questions(name: str) -> None:
    figures = json.loads((MODELS / name / "evaluation.json").read_text())
    assert all(figure["num_questions"] >= 500 for figure in figures.values())
    if name == "orrery-llama":
        for figure in FIGURES:
            assert figures[figure.name]["share"] >= (figure.target or 0.0)
