"""What a question asks for, checked and with every default filled in, before anything is spent.

What a model's prompt style cannot do is refused by the option's name. Knows no other service.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from services.rag.config import LimitsConfig, RagConfig
from services.rag.conversations import check_conversation_id
from services.rag.prompts.style import PromptStyle
from services.rag.prompts.styles import style_named
from services.rag.services import Sampling
from services.rag.types import AnswerMode, AskOptions, Question, SearchMode
from services.runtime.errors import InvalidRequest, ModelNotFound

__all__ = ["Plan", "make_plan"]

MAX_TEMPERATURE = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A question that can be answered, and how."""

    question: Question
    application: str  # the generation application
    style: PromptStyle
    k: int
    max_passages: int
    min_score: float | None
    sampling: Sampling

    @property
    def options(self) -> AskOptions:
        return self.question.options

    @property
    def remembers(self) -> bool:
        """Whether it belongs to a conversation."""
        return bool(self.question.conversation_id)

    @property
    def holds_answer(self) -> bool:
        """Whether the text is held back until it has its citations.

        Strictly, what nothing supports is then never seen. Where the answer is long, and could be
        read while it is written, that would cost too much.
        """
        strict = self.options.mode is AnswerMode.STRICT
        return strict and (self.style.is_brief or self.sampling.num_samples > 1)

    def stages(self) -> tuple[str, ...]:
        """Those that take a share of the time, in order."""
        options = self.options
        planned = {
            "conversation": self.remembers,
            "rewrite": self.remembers,
            "queries": options.num_queries > 1,
            "hyde": options.hyde,
            "embed": options.search_mode is not SearchMode.SPARSE,
            "search": True,
            "pack": True,
            "generate": True,
        }
        return tuple(stage for stage, runs in planned.items() if runs)


def make_plan(config: RagConfig, question: Question) -> Plan:
    """Raises `InvalidRequest` naming the field, `ModelNotFound`."""
    application = config.application_of(question.model)
    if application is None:
        known = ", ".join(config.models)
        raise ModelNotFound(f"model: expected one of {known}", field="model")
    style = style_named(config.models[application].style)
    limits, options = config.limits, question.options
    _check_question(question, limits)
    _check_style(options, application, style)
    k = config.default_k if options.k is None else options.k
    _check_range("options.k", k, 1, limits.max_k)
    max_passages = style.max_passages if options.max_passages is None else options.max_passages
    _check_range("options.max_passages", max_passages, 0, limits.max_k)
    _check_range("options.num_queries", options.num_queries, 1, limits.max_queries)
    return Plan(
        question=question,
        application=application,
        style=style,
        k=k,
        max_passages=max_passages,
        min_score=_min_score(config, options),
        sampling=_sampling(config, options, style),
    )


def _check_question(question: Question, limits: LimitsConfig) -> None:
    size = len(question.text.encode())
    if not question.text.strip() or size > limits.max_question_bytes:
        raise InvalidRequest(
            f"question: expected 1 to {limits.max_question_bytes} bytes of text, got {size}",
            field="question",
        )
    if not question.collection:
        raise InvalidRequest("collection: expected the name of one", field="collection")
    if question.conversation_id:
        check_conversation_id(question.conversation_id)


def _check_style(options: AskOptions, application: str, style: PromptStyle) -> None:
    unable = {
        "options.num_queries": options.num_queries > 1 and style.query_prompts is None,
        "options.hyde": options.hyde and style.query_prompts is None,
        "options.chain_of_thought": options.chain_of_thought and not style.reasons,
    }
    for field, refused in unable.items():
        if refused:
            raise InvalidRequest(
                f"{field}: the model {application!r} (prompt style {style.name!r}) cannot do it; "
                "it needs a model that follows instructions",
                field=field,
            )


def _min_score(config: RagConfig, options: AskOptions) -> float | None:
    if options.min_score is not None:
        if not math.isfinite(options.min_score):
            raise InvalidRequest(
                "options.min_score: expected a finite number", field="options.min_score"
            )
        return options.min_score
    # The default is a similarity of vectors: it says nothing about BM25's scores.
    return None if options.search_mode is SearchMode.SPARSE else config.default_min_score


def _sampling(config: RagConfig, options: AskOptions, style: PromptStyle) -> Sampling:
    limits = config.limits
    _check_range("options.num_samples", options.num_samples, 1, limits.max_samples)
    max_tokens = style.max_tokens if options.max_tokens is None else options.max_tokens
    _check_range("options.max_tokens", max_tokens, 1, limits.max_tokens)
    several = options.num_samples > 1
    temperature = options.temperature
    if temperature is None:
        temperature = config.sample_temperature if several else 0.0
    if not 0 <= temperature <= MAX_TEMPERATURE:
        raise InvalidRequest(
            f"options.temperature: expected 0 to {MAX_TEMPERATURE:g}, got {temperature:g}",
            field="options.temperature",
        )
    if several and temperature == 0:
        raise InvalidRequest(
            "options.temperature: expected more than 0 where several answers are sampled: at 0 "
            "they are all the same",
            field="options.temperature",
        )
    return Sampling(max_tokens, temperature, options.seed, options.num_samples)


def _check_range(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidRequest(f"{field}: expected {least} to {most}, got {value}", field=field)
