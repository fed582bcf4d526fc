"""The picture models' tokenizer: CLIP's own scheme, with every word of the captions one token.

Byte-level BPE with `</w>` at the end of a word; all bytes are in the vocabulary, so that any text
can be encoded. `orrery-clip` and the text encoder of `orrery-diffusion` have the same one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from training.images import captions

MAX_TOKENS = 32
END_OF_WORD = "</w>"
BOS = "<|startoftext|>"
EOS = "<|endoftext|>"
_PUNCTUATION = (",", ".")


def build_tokenizer() -> CLIPTokenizer:
    """The tokenizer of the grammar's words; the same on every machine."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = merges_for((*captions.words(), *_PUNCTUATION))
    tokens = [*alphabet, *(char + END_OF_WORD for char in alphabet)]
    tokens += [first + second for first, second in merges]
    vocabulary = {token: index for index, token in enumerate([*tokens, BOS, EOS])}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=EOS,
        pad_token=EOS,
        model_max_length=MAX_TOKENS,
    )


def merges_for(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, commonest pair first, that make each of `words` one token."""
    pieces = [[*word[:-1], word[-1] + END_OF_WORD] for word in words]
    merges = []
    while any(len(word) > 1 for word in pieces):
        counts = Counter(pair for word in pieces for pair in pairwise(word))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        pieces = [_merged(word, best) for word in pieces]
    return merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    index = 0
    while index < len(word):
        if tuple(word[index : index + 2]) == pair:
            merged.append("".join(pair))
            index += 2
        else:
            merged.append(word[index])
            index += 1
    return merged
