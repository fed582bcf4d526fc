"""Batches of token ids and loss weights, generated on the fly from the corpus.

Generating and tokenising is some fifty times faster than training, so nothing is stored: a
position in the stream is a pair (chunk, batch), and the same position always gives the same batch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from tokenizers import Tokenizer

from training.corpus import LOSS_WEIGHTS, Mix, Sample, Weight, samples
from training.prompt import PAD, SPECIAL_TOKENS

MAX_LENGTH = 1024
SAMPLES_PER_CHUNK = 2000


@dataclass(frozen=True)
class Batch:
    """Right-padded `token_ids` and `weights` [num_samples, length]; padding weighs 0."""

    token_ids: np.ndarray
    weights: np.ndarray
    num_tokens: int  # without padding


def encode_sample(tokenizer: Tokenizer, sample: Sample) -> tuple[list[int], list[float]]:
    """Token ids of a sample and the loss weight of predicting each of them."""
    ids: list[int] = []
    weights: list[float] = []
    for segment in sample:
        weight = LOSS_WEIGHTS[segment.weight]
        if segment.text in SPECIAL_TOKENS:
            piece = [tokenizer.token_to_id(segment.text)]
        else:
            piece = tokenizer.encode(segment.text, add_special_tokens=False).ids
        piece_weights = [weight] * len(piece)
        if segment.first is not None and piece:
            piece_weights[0] = LOSS_WEIGHTS[segment.first]
        ids += piece
        weights += piece_weights
    return ids, weights


def batches(
    tokenizer: Tokenizer, mix: Mix, seed: int, tokens_per_batch: int, chunk: int = 0
) -> Iterator[tuple[int, int, Batch]]:
    """An endless stream of (chunk, number in the chunk, batch) from the given chunk on.

    Samples of like length share a batch of at most `tokens_per_batch` tokens with padding.
    """
    pad_id = tokenizer.token_to_id(PAD)
    while True:
        chunk_seed = seed * 100_000 + chunk
        encoded = [
            encode_sample(tokenizer, sample)
            for sample in islice(samples(mix, chunk_seed), SAMPLES_PER_CHUNK)
        ]
        kept = sorted((e for e in encoded if len(e[0]) <= MAX_LENGTH), key=lambda e: len(e[0]))
        groups = _group(kept, tokens_per_batch)
        random.Random(chunk_seed).shuffle(groups)
        for number, group in enumerate(groups):
            batch = _pad(group, pad_id)
            _thin_context(batch.weights, mix.context_share, seed=(chunk_seed, number))
            yield chunk, number, batch
        chunk += 1


Encoded = tuple[list[int], list[float]]


def _group(encoded: list[Encoded], tokens_per_batch: int) -> list[list[Encoded]]:
    groups: list[list[Encoded]] = [[]]
    for item in encoded:  # ascending length: the newest item sets the padded length
        if groups[-1] and (len(groups[-1]) + 1) * len(item[0]) > tokens_per_batch:
            groups.append([])
        groups[-1].append(item)
    return groups


def _thin_context(weights: np.ndarray, share: float, seed: tuple[int, int]) -> None:
    """Let only a random `share` of the context's tokens count, in place.

    Names and values are made up, so most of the context cannot be predicted: learning from all of
    it costs time and adds noise to the gradient of the answers.
    """
    is_context = weights == np.float32(LOSS_WEIGHTS[Weight.CONTEXT])
    weights[is_context & (np.random.default_rng(seed).random(weights.shape) >= share)] = 0.0


def _pad(group: list[Encoded], pad_id: int) -> Batch:
    length = max(len(ids) for ids, _ in group)
    token_ids = np.full((len(group), length), pad_id, dtype=np.int64)
    weights = np.zeros((len(group), length), dtype=np.float32)
    for row, (ids, sample_weights) in enumerate(group):
        token_ids[row, : len(ids)] = ids
        weights[row, : len(ids)] = sample_weights
    return Batch(token_ids, weights, sum(len(ids) for ids, _ in group))
