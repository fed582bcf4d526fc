"""Beam search equals Hugging Face's, and its forks share blocks and give them back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from services.engine.beam_search import BeamSearch
from services.engine.config import EngineConfig
from services.engine.engine import LLMEngine
from services.engine.errors import InvalidRequestError
from services.engine.kv_cache import bytes_per_block
from services.engine.request import FinishReason, Request, RequestOutput, SamplingParams, Sequence
from services.engine.weights import LoadedModel, load_model
from tests.fakes.random_models import VOCAB_SIZE, random_model
from tests.unit.engine.toy import run_one, run_to_end

MAX_MODEL_LEN = 64
PROMPTS = [[5, 9, 17, 40, 3, 77, 12], [100, 4, 4, 61], [150] * 11, [33]]


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[LoadedModel, transformers.PreTrainedModel]:
    folder: Path = tmp_path_factory.mktemp("model")
    theirs = random_model("llama-gqa", initializer_range=0.02)
    # A flatter distribution: with a peaked one, all beams would follow the greedy path.
    with torch.no_grad():
        theirs.lm_head.weight.mul_(0.25)
    theirs.save_pretrained(folder)
    return load_model(folder), theirs


def make_engine(model: LoadedModel, num_blocks: int = 200, **changes: Any) -> LLMEngine:
    values = {
        "num_threads": 1,
        "block_size": 4,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 64,
        "max_model_len": MAX_MODEL_LEN,
        **changes,
    }
    config = EngineConfig.model_validate(values)
    kv_cache_bytes = num_blocks * bytes_per_block(model.config, config, model.dtype)
    return LLMEngine(model, None, config.model_copy(update={"kv_cache_bytes": kv_cache_bytes}))


def beams_by_transformers(
    model: transformers.PreTrainedModel, prompt: list[int], *, stops: list[int], **settings: Any
) -> tuple[list[list[int]], list[float]]:
    """The output token ids of each returned beam (up to its end), and their scores."""
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        do_sample=False,
        eos_token_id=stops or None,
        pad_token_id=VOCAB_SIZE - 1,
        output_scores=True,
        return_dict_in_generate=True,
        **settings,
    )
    beams = []
    for sequence in out.sequences[:, len(prompt) :].tolist():
        ends = [i for i, token in enumerate(sequence) if token in stops]
        beams.append(sequence[: ends[0] + 1] if ends else sequence)
    return beams, out.sequences_scores.tolist()


@pytest.mark.parametrize("width", [2, 5])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("stops", [[], [7], [3, 50, 101, 160, 180]])
def test_beams_equal_transformers(
    models: tuple[LoadedModel, transformers.PreTrainedModel],
    width: int,
    length_penalty: float,
    stops: list[int],
) -> None:
    model, theirs = models
    max_tokens = 14
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=0.0,
        beam_width=width,
        n=width,
        length_penalty=length_penalty,
        stop_token_ids=tuple(stops),
    )
    engine = make_engine(model)
    for number, prompt in enumerate(PROMPTS):
        engine.add_request(Request(str(number), prompt, params))
    outputs = run_to_end(engine)
    for number, prompt in enumerate(PROMPTS):
        beams, scores = beams_by_transformers(
            theirs,
            prompt,
            stops=stops,
            max_new_tokens=max_tokens,
            num_beams=width,
            num_return_sequences=width,
            length_penalty=length_penalty,
        )
        ours = outputs[str(number)].outputs
        assert [completion.token_ids for completion in ours] == beams
        for completion, score in zip(ours, scores, strict=True):
            assert completion.cumulative_logprob is not None
            length = len(completion.token_ids) ** length_penalty
            assert completion.cumulative_logprob / length == pytest.approx(score, abs=1e-4)
            stopped = completion.token_ids[-1] in stops
            expected = FinishReason.STOP if stopped else FinishReason.LENGTH
            assert completion.finish_reason is expected


def test_stop_tokens_end_some_beams(
    models: tuple[LoadedModel, transformers.PreTrainedModel],
) -> None:
    """The comparison above would prove little if no beam ever stopped."""
    params = SamplingParams(
        max_tokens=14, temperature=0.0, beam_width=4, n=4, stop_token_ids=(3, 50, 101, 160, 180)
    )
    engine = make_engine(models[0])
    reasons = set()
    for number, prompt in enumerate(PROMPTS):
        output = run_one(engine, Request(str(number), prompt, params))
        reasons |= {completion.finish_reason for completion in output.outputs}
    assert reasons >= {FinishReason.STOP}


@pytest.mark.parametrize("num_blocks", [16, 19])
def test_beams_under_pressure_equal_beams_at_ease(
    models: tuple[LoadedModel, transformers.PreTrainedModel], num_blocks: int
) -> None:
    """As few blocks as one full sequence needs: beams are preempted, held, and take turns."""
    params = SamplingParams(max_tokens=40, temperature=0.0, beam_width=4, n=4)

    def run(engine: LLMEngine) -> dict[str, list[list[int]]]:
        for number, prompt in enumerate(PROMPTS[:3]):
            engine.add_request(Request(str(number), prompt, params))
        outputs = run_to_end(engine)
        return {name: [c.token_ids for c in output.outputs] for name, output in outputs.items()}

    at_ease = run(make_engine(models[0]))
    pressed = make_engine(models[0], num_blocks)
    assert run(pressed) == at_ease
    assert pressed.load().num_preemptions > 0


def test_beams_beside_sampling_requests_disturb_neither(
    models: tuple[LoadedModel, transformers.PreTrainedModel],
) -> None:
    beam = SamplingParams(max_tokens=12, temperature=0.0, beam_width=3, n=3)
    sample = SamplingParams(max_tokens=12, seed=3)
    requests = {
        "beam": Request("beam", PROMPTS[0], beam),
        "one": Request("one", PROMPTS[1], sample),
    }
    alone = {name: run_one(make_engine(models[0]), request) for name, request in requests.items()}
    engine = make_engine(models[0])
    for request in requests.values():
        engine.add_request(request)
    together = run_to_end(engine)

    def tokens(output: RequestOutput) -> list[list[int]]:
        return [completion.token_ids for completion in output.outputs]

    for name in requests:
        assert tokens(together[name]) == tokens(alone[name])


def test_aborted_search_gives_back_its_blocks(
    models: tuple[LoadedModel, transformers.PreTrainedModel],
) -> None:
    engine = make_engine(models[0])
    params = SamplingParams(max_tokens=40, temperature=0.0, beam_width=5)
    for _ in range(7):
        engine.add_request(Request("r", PROMPTS[2], params))
        for _ in range(6):
            engine.step()
            engine.check_integrity()
        engine.abort("r")
        assert engine.load().num_free_blocks == engine.load().num_blocks


def test_search_past_its_deadline_ends_as_deadline(
    models: tuple[LoadedModel, transformers.PreTrainedModel],
) -> None:
    engine = make_engine(models[0])
    request = Request("r", PROMPTS[2], SamplingParams(max_tokens=40, beam_width=3, n=2))
    engine.add_request(request)
    engine.step()
    engine.step()
    request.deadline_s = 0.0
    engine.scheduler._next_expiry = 0.0
    [output] = engine.step()
    reasons = [completion.finish_reason for completion in output.outputs]
    assert output.finished
    assert reasons == [FinishReason.DEADLINE] * 2


def test_constraints_and_min_tokens_hold_for_beams(
    models: tuple[LoadedModel, transformers.PreTrainedModel],
) -> None:
    allowed = (3, 7, 20, 21, 22, 23)
    params = SamplingParams(
        max_tokens=8,
        min_tokens=5,
        temperature=0.0,
        beam_width=3,
        n=3,
        stop_token_ids=(3, 7),
        allowed_token_ids=allowed,
    )
    output = run_one(make_engine(models[0]), Request("r", PROMPTS[0], params))
    for completion in output.outputs:
        assert set(completion.token_ids) <= set(allowed)
        assert not {3, 7} & set(completion.token_ids[:5])


@pytest.mark.parametrize(
    ("field", "value"),
    [("stop", ("x",)), ("logprobs", 1), ("top_p", 0.5), ("best_of", 3), ("seed", 1)],
)
def test_what_beam_search_cannot_do_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams(beam_width=3, **{field: value})
    assert caught.value.field == field


def test_search_stops_when_the_best_beam_cannot_beat_the_finished() -> None:
    params = SamplingParams(max_tokens=10, beam_width=2)
    root = Sequence(0, Request("r", [1], params), [1], max_num_tokens=11)
    search = BeamSearch(params, root, {0})
    assert search.report(root, [(0, math.log(0.5)), (5, math.log(0.3)), (6, math.log(0.1))])
    first, second = search.select()
    assert (first.token_id, second.token_id) == (5, 6)
    beams = [
        Sequence(i, root.request, [1, token], max_num_tokens=11) for i, token in ((1, 5), (2, 6))
    ]
    search.replace_beams(
        [(beams[0], first.cumulative_logprob), (beams[1], second.cumulative_logprob)]
    )
    assert not search.report(beams[1], [(0, -0.1), (5, -9.0)])
    assert search.report(beams[0], [(0, -0.1), (5, -9.0)])
    assert search.select() == []
    assert [h.token_ids for h in search.finished] == [[5, 0], [0]]  # -0.65 and -0.69 per token
