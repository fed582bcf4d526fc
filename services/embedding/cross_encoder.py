"""A cross-encoder: a query and a passage, read together, to one score.

Loads any folder that sentence-transformers' `CrossEncoder` loads and that gives one score for a
pair. Knows nothing of batching or gRPC.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer

from services.embedding.encoder import pad
from services.embedding.folder import content_hash, find_folder
from services.runtime.model_files import ModelFolderError

__all__ = ["PairScorer", "ScorerOptions", "TokenizedPair"]

Scores = npt.NDArray[np.float32]

# A tokenizer without a limit of its own says something like 1e30.
_NO_LIMIT = 1 << 24


@dataclass(frozen=True, slots=True)
class ScorerOptions:
    """How to load a cross-encoder. None: as its folder says."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    max_pair_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A pair as the model reads it: token ids, and which of the two texts each belongs to."""

    ids: list[int]
    type_ids: list[int]

    def digest(self) -> bytes:
        """Equal for equal model inputs, 16 bytes."""
        content = array("q", (len(self.ids), *self.ids, *self.type_ids)).tobytes()
        return hashlib.blake2b(content, digest_size=16).digest()


class PairScorer:
    """Pairs to scores. `score` is for one thread at a time, `tokenize` for any."""

    def __init__(self, folder: Path, options: ScorerOptions) -> None:
        """Reads the folder. Raises `ModelFolderError`."""
        content_hash(folder)  # refuses what is pickled
        self._device = torch.device(options.device)
        self._model = _load(folder, options)
        hf_tokenizer = self._model.tokenizer
        if not getattr(hf_tokenizer, "is_fast", False):
            raise ModelFolderError(f"{folder}: expected a tokenizer.json")
        limit = _max_pair_tokens(self._model, options, folder)
        self._tokenizer = Tokenizer.from_str(hf_tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(
            limit, strategy="longest_first", direction=hf_tokenizer.truncation_side
        )
        self._with_type_ids = "token_type_ids" in hf_tokenizer.model_input_names
        self._pad_id: int = hf_tokenizer.pad_token_id or 0
        self._pads_left: bool = hf_tokenizer.padding_side == "left"

    @classmethod
    def load(cls, name: str, options: ScorerOptions) -> PairScorer:
        """From a folder or a hub name. Raises `ModelFolderError`."""
        return cls(find_folder(name), options)

    def tokenize(self, query: str, passages: Sequence[str]) -> list[TokenizedPair]:
        """The query with each passage; the longer of the two is cut to the model's context."""
        encodings = self._tokenizer.encode_batch_fast([(query, passage) for passage in passages])
        return [TokenizedPair(encoding.ids, encoding.type_ids) for encoding in encodings]

    @torch.inference_mode()
    def score(self, pairs: Sequence[TokenizedPair]) -> Scores:
        """One score for each, `[num_pairs]`, higher is better."""
        ids, mask = pad([pair.ids for pair in pairs], self._pad_id, left=self._pads_left)
        features: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids).to(self._device),
            "attention_mask": torch.from_numpy(mask).to(self._device),
        }
        if self._with_type_ids:
            type_ids, _ = pad([pair.type_ids for pair in pairs], 0, left=self._pads_left)
            features["token_type_ids"] = torch.from_numpy(type_ids).to(self._device)
        logits = self._model(features)["scores"].float()
        scores: Scores = self._model.activation_fn(logits).reshape(len(pairs)).cpu().numpy()
        return scores


def _max_pair_tokens(model: Any, options: ScorerOptions, folder: Path) -> int:
    positions = getattr(model.config, "max_position_embeddings", None)
    known = [limit for limit in (model.max_seq_length, positions) if limit]
    wanted = options.max_pair_tokens or min(known, default=_NO_LIMIT)
    if wanted >= _NO_LIMIT:
        raise ModelFolderError(f"{folder}: says no context length; set max_pair_tokens")
    return int(min([wanted, *known]))


def _load(folder: Path, options: ScorerOptions) -> Any:
    """Raises `ModelFolderError`."""
    dtype = getattr(torch, options.dtype)
    try:
        model = CrossEncoder(
            str(folder),
            device=options.device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": dtype, "use_safetensors": True},
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelFolderError(f"{folder}: {error}") from error
    if model.num_labels != 1:
        raise ModelFolderError(f"{folder}: expected one score for a pair, got {model.num_labels}")
    return model.eval()
