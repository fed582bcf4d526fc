"""What a question may ask for."""

from __future__ import annotations

import math
from typing import Any

import pytest

from services.rag.config import ModelConfig, RagConfig
from services.rag.planning import make_plan
from services.rag.types import AskOptions, Question, SearchMode
from services.runtime.config import config_from_args
from services.runtime.errors import InvalidRequest, ModelNotFound
from tests.fakes.rag_server import CONFIG


def question(text: str = "Who?", model: str = "", **options: Any) -> Question:
    return Question(text, "docs", AskOptions(**options), model=model)


def test_defaults_are_the_styles_and_the_services() -> None:
    plan = make_plan(CONFIG, question())
    assert (plan.application, plan.k, plan.max_passages) == ("llama", CONFIG.default_k, 3)
    assert plan.min_score == CONFIG.default_min_score
    assert (plan.sampling.max_tokens, plan.sampling.temperature) == (48, 0.0)


def test_model_is_found_by_application_and_alias() -> None:
    assert make_plan(CONFIG, question(model="orrery-llama")).application == "llama"
    assert make_plan(CONFIG, question(model="chat")).style.name == "instruct"
    with pytest.raises(ModelNotFound, match="llama, chat"):
        make_plan(CONFIG, question(model="other"))


def test_several_samples_are_drawn_at_a_temperature() -> None:
    assert make_plan(CONFIG, question(num_samples=5)).sampling.temperature == 0.7
    with pytest.raises(InvalidRequest) as caught:
        make_plan(CONFIG, question(num_samples=5, temperature=0.0))
    assert caught.value.field == "options.temperature"


def test_default_least_score_is_not_applied_to_words() -> None:
    assert make_plan(CONFIG, question(search_mode=SearchMode.SPARSE)).min_score is None
    plan = make_plan(CONFIG, question(search_mode=SearchMode.SPARSE, min_score=3.0))
    assert plan.min_score == 3.0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"k": 0}, "options.k"),
        ({"k": 1_000_000}, "options.k"),
        ({"max_passages": 101}, "options.max_passages"),
        ({"num_queries": 0}, "options.num_queries"),
        ({"num_queries": 2}, "options.num_queries"),
        ({"hyde": True}, "options.hyde"),
        ({"chain_of_thought": True}, "options.chain_of_thought"),
        ({"num_samples": 17}, "options.num_samples"),
        ({"max_tokens": 0}, "options.max_tokens"),
        ({"temperature": math.nan}, "options.temperature"),
        ({"temperature": 2.5}, "options.temperature"),
        ({"min_score": math.inf}, "options.min_score"),
    ],
)
def test_option_out_of_bounds_or_beyond_the_model_is_refused_by_name(
    options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make_plan(CONFIG, question(**options))
    assert caught.value.field == field
    assert caught.value.message.startswith(field)


@pytest.mark.parametrize(
    "options", [{"num_queries": 3}, {"hyde": True}, {"chain_of_thought": True}]
)
def test_model_that_follows_instructions_can_do_all(options: dict[str, Any]) -> None:
    make_plan(CONFIG, question(model="chat", **options))


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (Question(" \n", "docs"), "question"),
        (Question("x" * 5000, "docs"), "question"),
        (Question("Who?", ""), "collection"),
        (Question("Who?", "docs", conversation_id="../etc"), "conversation_id"),
        (Question("Who?", "docs", conversation_id="x" * 129), "conversation_id"),
    ],
)
def test_question_that_cannot_be_asked_is_refused_by_name(asked: Question, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make_plan(CONFIG, asked)
    assert caught.value.field == field


def test_stages_are_those_that_will_run() -> None:
    plain = make_plan(CONFIG, question()).stages()
    assert plain == ("embed", "search", "pack", "generate")
    asked = Question(
        "Who?",
        "docs",
        AskOptions(num_queries=2, hyde=True, search_mode=SearchMode.SPARSE),
        conversation_id="c",
        model="chat",
    )
    assert make_plan(CONFIG, asked).stages() == (
        *("conversation", "rewrite", "queries", "hyde", "search", "pack", "generate"),
    )


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"models": {}, "default_model": "llama"}, "models"),
        ({"models": {"gpt": {}}, "default_model": "llama"}, "default_model"),
        ({"models": {"a": {"aliases": ["b"]}, "b": {}}, "default_model": "a"}, "models"),
        ({"models": {"a": {"style": "odd"}}, "default_model": "a"}, r"models\.a\.style"),
        ({"models": {"a": {}}, "default_model": "a", "shares": {"generate": 0.9}}, "shares"),
        ({"models": {"a": {}}, "default_model": "a", "unknown": 1}, "unknown"),
    ],
)
def test_wrong_setting_stops_the_start_and_is_named(args: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        config_from_args(RagConfig, args, "rag")


def test_default_k_above_its_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="default_k"):
        RagConfig(models={"a": ModelConfig()}, default_model="a", default_k=101)
