"""Which tokens may be drawn: top-k, top-p, min-p and typical-p, and the draw itself.

Knows nothing of requests: takes scaled logits and one column of parameters per filter.

top-k, top-p and min-p all keep the tokens whose logit reaches a row's *cutoff*, so they need the
sorted values of a row but no sorted indices, and the vocabulary itself is never permuted. Tokens
that tie with the cutoff are all kept: which of them stays must not depend on a sort's whims.
On the CPU numpy's vectorised sort and partition are used, an order of magnitude faster there
than torch's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Filters", "draw", "kept_weights"]

_BLOCK = 64  # tokens per block of the two-level inverse CDF


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of S rows, as float32 or int64 columns [S]; None when no row uses one."""

    top_k: Tensor | None = None  # int64; vocab_size = all
    top_p: Tensor | None = None  # float64; 1 = all
    min_p: Tensor | None = None  # float32; 0 = all
    typical_p: Tensor | None = None  # float32; 1 = all


def kept_weights(scaled: Tensor, filters: Filters) -> Tensor:
    """Unnormalised probabilities of the tokens that pass the filters; 0 for the others.

    `scaled`: float32 [S, vocab], logits over temperature, each row's maximum at 0.
    Each filter sees the renormalised result of the one before, in the order of the fields
    (Hugging Face's order). The most likely token always stays, except under typical-p.
    """
    weights = torch.exp(scaled)  # [S, vocab]; the maximum has weight 1
    cutoff = _cutoff(scaled, filters)
    if cutoff is not None:
        weights.mul_(torch.ge(scaled, cutoff[:, None], out=torch.empty_like(scaled)))
    if filters.typical_p is not None:
        rows = torch.nonzero(filters.typical_p < 1.0).flatten()
        weights[rows] = _typical(weights[rows], filters.typical_p[rows])
    return weights


def _cutoff(scaled: Tensor, filters: Filters) -> Tensor | None:
    """The least scaled logit that top-k, top-p and min-p keep: float32 [S], or None if all."""
    cutoffs = []
    nucleus_rows = None
    if filters.top_p is not None:
        nucleus_rows = filters.top_p < 1.0
        rows = torch.nonzero(nucleus_rows).flatten()
        top_k = None if filters.top_k is None else filters.top_k[rows]
        cutoff = scaled.new_full((len(scaled),), float("-inf"))
        cutoff[rows] = _nucleus_cutoff(_rows_of(scaled, rows), filters.top_p[rows], top_k)
        cutoffs.append(cutoff)
    if filters.top_k is not None:
        using = filters.top_k < scaled.shape[1]
        if nucleus_rows is not None:
            using &= ~nucleus_rows  # already in the nucleus cutoff
        rows = torch.nonzero(using).flatten()
        if len(rows):
            cutoff = scaled.new_full((len(scaled),), float("-inf"))
            cutoff[rows] = _kth_largest(_rows_of(scaled, rows), filters.top_k[rows])
            cutoffs.append(cutoff)
    if filters.min_p is not None:  # p >= min_p * p_max, and log p_max is 0 up to a constant
        cutoffs.append(filters.min_p.log())
    if not cutoffs:
        return None
    return torch.stack(cutoffs).amax(0)


def _rows_of(values: Tensor, rows: Tensor) -> Tensor:
    return values if len(rows) == len(values) else values.index_select(0, rows)


def _nucleus_cutoff(scaled: Tensor, top_p: Tensor, top_k: Tensor | None) -> Tensor:
    """Top-p after top-k (Holtzman et al., "The curious case of neural text degeneration", 2020).

    Keeps the smallest set of most likely tokens whose mass reaches `top_p`. Seen from below, a
    token goes while the mass up to and including it is at most 1 - top_p:

        sorted  |-- below the k-th --|------ dropped ------|---- kept ----|
        mass    0                  below         below + (1 - p) * rest   total
    """
    ordered = _sort(scaled)  # [R, vocab], ascending
    mass = torch.exp(ordered).cumsum(-1)
    below = mass.new_zeros(len(mass), 1)
    if top_k is not None:
        kth = ordered.gather(1, (ordered.shape[1] - top_k)[:, None])  # [R, 1]
        first = torch.searchsorted(ordered, kth)  # ties with the k-th are kept
        below = mass.gather(1, (first - 1).clamp_min(0)).masked_fill(first == 0, 0.0)
    limit = below + (1.0 - top_p).float()[:, None] * (mass[:, -1:] - below)
    first_kept = torch.searchsorted(mass, limit, right=True)
    return ordered.gather(1, first_kept.clamp_max(ordered.shape[1] - 1)).squeeze(1)


def _sort(values: Tensor) -> Tensor:
    """Each row ascending; the values alone."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
    return torch.sort(values, dim=-1).values


def _argsort(values: Tensor) -> Tensor:
    """The indices that sort each row ascending; of equal values in any order."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.argsort(values.numpy(), axis=-1))
    return torch.argsort(values, dim=-1)


def _kth_largest(values: Tensor, k: Tensor) -> Tensor:
    """The k[i]-th largest value of row i: float32 [R]."""
    if values.device.type == "cpu":
        index = values.shape[1] - k.numpy()
        parted = np.partition(values.numpy(), np.unique(index), axis=-1)
        return torch.from_numpy(np.take_along_axis(parted, index[:, None], axis=-1)[:, 0])
    largest = torch.topk(values, int(k.max()), dim=-1).values
    return largest.gather(1, k[:, None] - 1).squeeze(1)


def _typical(weights: Tensor, typical_p: Tensor) -> Tensor:
    """Locally typical sampling (Meister et al., 2023, equation 10).

    Keeps the tokens whose surprisal -log p is closest to the entropy of the distribution, until
    their mass reaches `typical_p`. `weights` [R, vocab], unnormalised -> the same, filtered.
    """
    p = weights / weights.sum(-1, keepdim=True)
    surprisal = -torch.log(p)  # inf where p = 0
    entropy: Tensor = torch.special.entr(p).sum(-1, keepdim=True)
    distance = (surprisal - entropy).abs()
    order = _argsort(distance)
    mass = p.gather(1, order).cumsum(-1)
    last_kept = torch.searchsorted(mass, typical_p[:, None]).clamp_max(mass.shape[1] - 1)
    threshold = distance.gather(1, order.gather(1, last_kept))
    return weights * (distance <= threshold)


def draw(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse CDF over the vocabulary's order, its running sums in float64.

    `weights`: float32 [S, vocab], at least one positive per row. `uniform`: float64 [S] in [0, 1).
    Returns the token ids int64 [S] and whether each row was a distribution at all (bool [S]; a
    model that computes NaN has none).

    In two levels, so that the running sum is not taken over the whole vocabulary: first the block
    of `_BLOCK` tokens in which the target mass falls, then the token within the block.
    """
    vocab_size = weights.shape[1]
    num_whole = vocab_size // _BLOCK
    whole = weights[:, : num_whole * _BLOCK].reshape(len(weights), num_whole, _BLOCK)
    tail = weights[:, num_whole * _BLOCK :].sum(-1, keepdim=True)
    blocks = torch.cat([whole.sum(-1), tail], 1).cumsum(-1, dtype=torch.float64)
    target = uniform[:, None] * blocks[:, -1:]  # [S, 1]
    block = torch.searchsorted(blocks, target, right=True).clamp_max(num_whole)
    before = blocks.gather(1, (block - 1).clamp_min(0)).masked_fill(block == 0, 0.0)

    offsets = block * _BLOCK + torch.arange(_BLOCK, device=weights.device)  # [S, _BLOCK]
    inside = weights.gather(1, offsets.clamp_max(vocab_size - 1)) * (offsets < vocab_size)
    mass = inside.cumsum(-1, dtype=torch.float64)
    # The two levels round differently: never step past the last token with weight.
    target = torch.minimum(target - before, torch.nextafter(mass[:, -1:], mass.new_zeros(())))
    chosen = torch.searchsorted(mass, target, right=True).clamp_max(_BLOCK - 1)
    token_ids = (block * _BLOCK + chosen).squeeze(1).clamp_max(vocab_size - 1)
    return token_ids, torch.isfinite(blocks[:, -1]) & (blocks[:, -1] > 0)
