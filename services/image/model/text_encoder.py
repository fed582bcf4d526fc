"""Prompts to what the UNet attends to: CLIP's tokenizer and text model.

Each text is encoded alone, so that a picture does not depend on the prompts beside it, and the
latest are kept: the empty negative prompt above all. Knows nothing of diffusion.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from services.image.model.modules import parameter_bytes

__all__ = ["TextEncoder"]

# A tokenizer without a limit of its own says something like 1e30.
_NO_LIMIT = 1 << 24


class TextEncoder:
    """Any thread may call it."""

    def __init__(
        self, tokenizer: CLIPTokenizer, model: CLIPTextModel, *, max_cache_bytes: int = 64 << 20
    ) -> None:
        self._model = model
        self._uses_mask = bool(getattr(model.config, "use_attention_mask", False))
        positions = int(model.config.max_position_embeddings)
        limit = int(tokenizer.model_max_length)
        self.max_tokens = min(positions, limit) if limit < _NO_LIMIT else positions
        self._pad_id = int(tokenizer.pad_token_id)
        # Without truncation and padding, which are state that calls of other threads would change.
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._max_cache_bytes = max_cache_bytes
        self._cache_bytes = 0

    @property
    def parameter_bytes(self) -> int:
        return parameter_bytes(self._model)

    @property
    def cache_bytes(self) -> int:
        return self._cache_bytes

    def count_tokens(self, text: str) -> int:
        """With the two that CLIP puts around a text."""
        return len(self._token_ids(text))

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """`[len(texts), max_tokens, width]`, float32.

        Raises `ValueError` for a text of more than `max_tokens` tokens.
        """
        return torch.stack([self._encode_or_recall(text) for text in texts])

    def _encode_or_recall(self, text: str) -> torch.Tensor:
        with self._lock:
            if text in self._cache:
                self._cache.move_to_end(text)
                return self._cache[text]
        encoded = self._encode(text)
        with self._lock:
            if text not in self._cache:
                self._cache[text] = encoded
                self._cache_bytes += encoded.nbytes
            while self._cache_bytes > self._max_cache_bytes:
                _, dropped = self._cache.popitem(last=False)
                self._cache_bytes -= dropped.nbytes
        return encoded

    @torch.inference_mode()
    def _encode(self, text: str) -> torch.Tensor:
        ids = self._token_ids(text)
        if len(ids) > self.max_tokens:
            raise ValueError(f"{len(ids)} tokens; the model reads {self.max_tokens}")
        num_padding = self.max_tokens - len(ids)
        inputs: dict[str, Any] = {"input_ids": [ids + [self._pad_id] * num_padding]}
        if self._uses_mask:
            inputs["attention_mask"] = [[1] * len(ids) + [0] * num_padding]
        tensors = {
            name: torch.tensor(value, device=self._model.device) for name, value in inputs.items()
        }
        encoded: torch.Tensor = self._model(**tensors)[0][0]
        return encoded.float()

    def _token_ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids
