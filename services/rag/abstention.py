"""When a question is not answered, and why. Pure decisions over what the stages found."""

from __future__ import annotations

from collections.abc import Sequence

from services.rag.planning import Plan
from services.rag.types import Abstention, AnswerMode, Citation

__all__ = ["after_citing", "before_writing"]


def before_writing(plan: Plan, used: Sequence[int]) -> Abstention | None:
    """Strictly, without a passage before the model there is nothing to answer from."""
    if plan.options.mode is AnswerMode.STRICT and not used:
        return Abstention.NO_PASSAGE
    return None


def after_citing(plan: Plan, answer: str, citations: Sequence[Citation]) -> Abstention | None:
    """The model said so; or, strictly, nothing that it said is in the passages."""
    if not answer or plan.style.is_refusal(answer):
        return Abstention.MODEL
    if plan.options.mode is AnswerMode.STRICT and not citations:
        return Abstention.UNSUPPORTED
    return None
