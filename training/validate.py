"""The three figures on held-out entities, measured by teacher forcing during training.

Greedy decoding gives exactly the expected reply if and only if every token of it is the most
likely one after the tokens before, so one forward pass per batch tells the exact match of free
decoding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer

from training.prompt import ANSWER, ASSISTANT, BOS, END, PAD, REFUSAL, USER, format_question
from training.questions import Case

_CASES_PER_BATCH = 25


def render_case(case: Case) -> tuple[str, str]:
    """The prompt of a case up to the assistant's turn, and the expected reply."""
    content = format_question(case.documents, case.question.text)
    prompt = f"{BOS}{USER}{content}{END}{ASSISTANT}"
    answer = case.question.answer
    reply = REFUSAL if answer is None else f"{ANSWER}{answer}"
    return prompt, f"{reply}{END}"


@torch.no_grad()
def exact_match(model: torch.nn.Module, tokenizer: Tokenizer, cases: Sequence[Case]) -> float:
    """The share of cases whose greedy reply would be exactly the expected one."""
    correct = 0
    encoded = []
    for case in cases:
        prompt, reply = render_case(case)
        encoded.append(
            (
                tokenizer.encode(prompt, add_special_tokens=False).ids,
                tokenizer.encode(reply, add_special_tokens=False).ids,
            )
        )
    encoded.sort(key=lambda pair: len(pair[0]))
    for start in range(0, len(encoded), _CASES_PER_BATCH):
        correct += _count_correct(model, tokenizer, encoded[start : start + _CASES_PER_BATCH])
    return correct / len(cases)


def _count_correct(
    model: torch.nn.Module, tokenizer: Tokenizer, pairs: list[tuple[list[int], list[int]]]
) -> int:
    length = max(len(prompt) + len(reply) for prompt, reply in pairs)
    token_ids = torch.full((len(pairs), length), tokenizer.token_to_id(PAD))
    for row, (prompt, reply) in enumerate(pairs):
        token_ids[row, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.base_model(input_ids=token_ids, use_cache=False).last_hidden_state
        correct = 0
        for row, (prompt, reply) in enumerate(pairs):
            reached = hidden[row, len(prompt) - 1 : len(prompt) + len(reply) - 1]
            best = model.lm_head(reached).argmax(-1)  # [reply length]
            correct += int(torch.equal(best, torch.tensor(reply)))
    return correct
