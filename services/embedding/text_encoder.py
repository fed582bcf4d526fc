"""A sentence-transformers model: token ids to vectors.

Loads any folder in sentence-transformers' layout whose first module is a text transformer (pooling
of any kind, dense layers and normalisation after it), and calls its modules on padded batches of
token ids directly: the library's `encode` tokenizes, sorts and copies again for every call. Knows
nothing of batching, caching or gRPC.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer

from services.embedding.encoder import EncoderOptions, Vectors, pad, unit_length
from services.embedding.folder import content_hash
from services.embedding.fused import fuse_gelu
from services.embedding.precision import Comparison, compare
from services.embedding.tokenization import InputTokenizer, TokenizedInput, TokenizerSettings
from services.engine.devices import has_bfloat16
from services.runtime.model_files import ModelFolderError

__all__ = ["TextEncoder"]

# What the folder may call the prompts, as sentence-transformers' encode_query/encode_document.
_QUERY_NAMES = ("query",)
_PASSAGE_NAMES = ("document", "passage", "corpus")
# A tokenizer without a limit of its own says something like 1e30.
_NO_LIMIT = 1 << 24
_PROBE_SHAPE = (16, 48)  # inputs, tokens: what the precisions are compared on

_LOG = logging.getLogger("orrery.embedding")


class TextEncoder:
    """An `Encoder` of texts alone. Loading and `embed` are for one thread at a time."""

    pictures: None = None

    def __init__(self, folder: Path, options: EncoderOptions) -> None:
        """Reads the folder. Raises `ModelFolderError` for what this class cannot serve."""
        self.weight_hash = content_hash(folder)
        self._device = torch.device(options.device)
        modules = _load(folder, self._device)
        self._transformer: Transformer = modules[0]
        self._after = list(modules)[1:]
        self._output: str = self._transformer.module_output_name
        self._counts_prompt = not any(
            getattr(module, "include_prompt", True) is False for module in self._after
        )
        self._always_normalize = options.normalize
        last = modules[-1]
        self.normalized = options.normalize or isinstance(last, Normalize)
        self.tokenizer = _tokenizer(self._transformer, options, folder)
        hf_tokenizer = self._transformer.tokenizer
        self._pad_id: int = hf_tokenizer.pad_token_id or 0
        self._pads_left: bool = hf_tokenizer.padding_side == "left"
        self.query_prompt = _prompt(modules.prompts, _QUERY_NAMES, options.query_prompt)
        self.passage_prompt = _prompt(modules.prompts, _PASSAGE_NAMES, options.passage_prompt)
        rows: int = self._transformer.config.get_text_config().vocab_size
        self.vocab_size = min(rows, self.tokenizer.vocab_size)
        self._use(options.dtype)
        self.dimensions = self._try_out(options.max_input_tokens is not None)

    @property
    def dtype(self) -> str:
        """ "float32" or "bfloat16"."""
        return str(self._transformer.model.dtype).removeprefix("torch.")

    @property
    def counts_prompt(self) -> bool:
        """Whether pooling takes in the prompt's tokens; otherwise it must be told their number."""
        return self._counts_prompt

    @torch.inference_mode()
    def embed(self, inputs: Sequence[TokenizedInput]) -> Vectors:
        """One vector for each, `[num_inputs, dimensions]`, in float32."""
        if self._counts_prompt:
            return self._forward(inputs, 0)
        parts = []  # pooling takes one prompt length for a batch
        order = sorted(range(len(inputs)), key=lambda place: inputs[place].prompt_length)
        for length, places in groupby(order, key=lambda place: inputs[place].prompt_length):
            parts.append(self._forward([inputs[place] for place in places], length))
        vectors = np.empty((len(inputs), parts[0].shape[1]), dtype=np.float32)
        vectors[order] = np.concatenate(parts)
        return vectors

    def _forward(self, inputs: Sequence[TokenizedInput], prompt_length: int) -> Vectors:
        rows, most = [item.ids for item in inputs], self.tokenizer.max_input_tokens
        ids, mask = pad(rows, self._pad_id, left=self._pads_left, most=most)
        features: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids).to(self._device),
            "attention_mask": torch.from_numpy(mask).to(self._device),
        }
        if prompt_length:
            features["prompt_length"] = prompt_length
        features = self._transformer(features)
        # The transformer alone computes in bfloat16: sums over tokens and norms would round.
        features[self._output] = features[self._output].float()
        for module in self._after:
            features = module(features)
        vectors: Vectors = features["sentence_embedding"].cpu().numpy()
        return unit_length(vectors) if self._always_normalize else vectors

    def _try_out(self, whole_context: bool) -> int:
        """The number of dimensions. Raises `ModelFolderError` where the context does not fit."""
        length = self.tokenizer.max_content_tokens if whole_context else 1
        token_id = 0 if self._pad_id else 1  # padding would have no position
        try:
            return int(self.embed([self.tokenizer.build([token_id] * length)]).shape[1])
        except (IndexError, RuntimeError) as error:
            raise ModelFolderError(
                f"max_input_tokens: the model cannot read {self.tokenizer.max_input_tokens} tokens"
            ) from error

    def _use(self, wanted: Literal["auto", "float32", "bfloat16"]) -> None:
        """Settles the precision of the transformer, which was loaded in float32."""
        if wanted == "float32" or (wanted == "auto" and not has_bfloat16(self._device)):
            return
        float32 = self._transformer.model
        bfloat16 = copy.deepcopy(float32).to(torch.bfloat16)
        if self._device.type == "cpu" and has_bfloat16(self._device):
            fuse_gelu(bfloat16)
        found = self._compare(float32, bfloat16)
        chosen = wanted == "bfloat16" or found.is_better
        self._transformer.model = bfloat16 if chosen else float32
        details = {"dtype": self.dtype, "cosine": found.cosine, "speedup": found.speedup}
        if chosen and not found.keeps_the_vectors:
            _LOG.warning("bfloat16_changes_the_vectors", extra=details)
        else:
            _LOG.info("precision", extra=details)

    def _compare(self, float32: torch.nn.Module, bfloat16: torch.nn.Module) -> Comparison:
        num_inputs, num_tokens = _PROBE_SHAPE
        length = min(num_tokens, self.tokenizer.max_content_tokens)
        ids = np.random.default_rng(0).integers(0, self.vocab_size, (num_inputs, length))
        probe = [self.tokenizer.build(row) for row in ids.tolist()]

        def side(model: torch.nn.Module) -> Callable[[], Vectors]:
            def run() -> Vectors:
                self._transformer.model = model
                return self.embed(probe)

            return run

        return compare(side(float32), side(bfloat16))


def _load(folder: Path, device: torch.device) -> Any:
    """The folder as a `SentenceTransformer` in float32. Raises `ModelFolderError`."""
    try:
        model = SentenceTransformer(
            str(folder),
            device=str(device),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelFolderError(f"{folder}: {error}") from error
    model.eval()
    first = model[0]
    if not isinstance(first, Transformer) or "text" not in first.modality_config:
        raise ModelFolderError(
            f"{folder}: expected a text transformer as the first module, got {type(first).__name__}"
        )
    if "message" in first.modality_config:
        raise ModelFolderError(f"{folder}: models that read chat messages are not served")
    if len(model) < 2 and first.module_output_name != "sentence_embedding":
        raise ModelFolderError(f"{folder}: expected a module that pools the tokens' vectors")
    return model


def _tokenizer(transformer: Any, options: EncoderOptions, folder: Path) -> InputTokenizer:
    hf_tokenizer = transformer.tokenizer
    if not getattr(hf_tokenizer, "is_fast", False):
        raise ModelFolderError(f"{folder}: expected a tokenizer.json")
    config = transformer.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or _NO_LIMIT
    own = min(hf_tokenizer.model_max_length or _NO_LIMIT, positions)
    wanted = options.max_input_tokens or own
    if wanted > positions:
        raise ModelFolderError(
            f"max_input_tokens: {folder.name} has positions for {positions} tokens, not {wanted}"
        )
    if wanted >= _NO_LIMIT:
        raise ModelFolderError(f"{folder}: says no context length; set max_input_tokens")
    settings = TokenizerSettings(int(wanted), hf_tokenizer.truncation_side == "left")
    try:
        return InputTokenizer(hf_tokenizer.backend_tokenizer, settings)
    except ValueError as error:
        raise ModelFolderError(f"{folder}: {error}") from error


def _prompt(prompts: Mapping[str, str], names: Sequence[str], configured: str | None) -> str:
    if configured is not None:
        return configured
    return next((prompts[name] for name in names if prompts.get(name)), "")
