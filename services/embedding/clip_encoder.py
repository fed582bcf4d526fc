"""A CLIP model: texts and pictures to vectors of one space (Radford et al. 2021).

Loads any Hugging Face CLIP folder, and a sentence-transformers folder that holds one, as
transformers' `CLIPModel`; calls its two towers on batches of token ids and of pixels directly. All
vectors have length 1, as those that `CLIPModel` compares. Knows nothing of batching, caching or
gRPC.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import AutoTokenizer, CLIPModel

from services.embedding.encoder import EncoderOptions, Vectors, pad
from services.embedding.folder import content_hash
from services.embedding.fused import fuse_gelu
from services.embedding.precision import Comparison, compare
from services.embedding.preprocessing import Pixels, Preprocessing, load_preprocessing
from services.embedding.tokenization import InputTokenizer, TokenizedInput, TokenizerSettings
from services.engine.devices import has_bfloat16
from services.runtime.model_files import ModelFolderError

__all__ = ["ClipEncoder", "find_clip"]

# Vectors of texts and pictures are compared with each other, where less is lost in bfloat16.
MIN_COSINE = 0.9999
_PROBE_SIZE = 16  # inputs of each kind that the precisions are compared on
_LEGACY_EOS = 2  # configurations of the first checkpoints say so; their tokenizers say otherwise

_LOG = logging.getLogger("orrery.embedding")


def find_clip(folder: Path) -> Path | None:
    """Where in a model's folder the CLIP model lies; None where it holds none.

    Raises `ModelFolderError` where a sentence-transformers folder does more than CLIP.
    """
    modules_file = folder / "modules.json"
    if not modules_file.is_file():
        return folder if _is_clip(folder) else None
    modules = _read_json(modules_file)
    part = folder / str(modules[0]["path"])
    if not _is_clip(part):
        return None
    for module in modules[1:]:
        kind = module["type"].rpartition(".")[2]
        if kind != "Normalize":  # vectors have length 1 anyway
            raise ModelFolderError(f"{modules_file}: expected nothing after CLIP, got {kind}")
    return part


class ClipEncoder:
    """An `Encoder` of texts, and pictures. Loading and `embed` are for one thread at a time."""

    normalized = True
    counts_prompt = True
    query_prompt = ""
    passage_prompt = ""

    def __init__(self, folder: Path, options: EncoderOptions) -> None:
        """Reads the folder. Raises `ModelFolderError`, also for options that no CLIP has."""
        _refuse_prompts(options)
        self.weight_hash = content_hash(folder)
        self._device = torch.device(options.device)
        model = _load(folder).to(self._device)
        preprocessing = load_preprocessing(folder, model.config.vision_config.image_size)
        self.tokenizer = _tokenizer(folder, model.config.text_config, options)
        self.vocab_size = min(model.config.text_config.vocab_size, self.tokenizer.vocab_size)
        self.dimensions: int = model.config.projection_dim
        self._pad_id = _end_id(folder, self.tokenizer, model.config.text_config)
        self._tower = _Tower(model.text_model, model.text_projection)
        scale = float(model.logit_scale.detach().exp())
        vision = _Tower(model.vision_model, model.visual_projection)
        self.pictures = ClipPictures(vision, preprocessing, scale, self._device)
        self._use(options.dtype)

    @property
    def dtype(self) -> str:
        """ "float32" or "bfloat16"."""
        return str(self._tower.dtype).removeprefix("torch.")

    @torch.inference_mode()
    def embed(self, inputs: Sequence[TokenizedInput]) -> Vectors:
        """One vector for each, `[num_inputs, dimensions]`, in float32."""
        # Each token attends to those before it and the vector is taken at the first end token, so
        # that padding with end tokens needs no mask.
        ids, _ = pad([item.ids for item in inputs], self._pad_id, left=False)
        vectors: Vectors = self._tower(input_ids=torch.from_numpy(ids).to(self._device))
        return vectors

    def _use(self, wanted: Literal["auto", "float32", "bfloat16"]) -> None:
        """Settles the precision of both towers, which were loaded in float32."""
        if wanted == "float32" or (wanted == "auto" and not has_bfloat16(self._device)):
            return
        float32 = self._tower, self.pictures.tower
        bfloat16 = tuple(copy.deepcopy(tower).to(torch.bfloat16) for tower in float32)
        if self._device.type == "cpu" and has_bfloat16(self._device):
            for tower in bfloat16:
                fuse_gelu(tower)
        found = self._compare(float32, bfloat16)
        if wanted == "bfloat16" or all(side.is_better for side in found):
            self._tower, self.pictures.tower = bfloat16
        else:
            self._tower, self.pictures.tower = float32
        details = {
            "dtype": self.dtype,
            "cosine": min(side.cosine for side in found),
            "speedup": min(side.speedup for side in found),
        }
        if self.dtype == "bfloat16" and not all(side.keeps_the_vectors for side in found):
            _LOG.warning("bfloat16_changes_the_vectors", extra=details)
        else:
            _LOG.info("precision", extra=details)

    def _compare(self, float32: Sequence[_Tower], bfloat16: Sequence[_Tower]) -> list[Comparison]:
        """Of the texts' tower, and of the pictures'."""
        rng = np.random.default_rng(0)
        shape = (_PROBE_SIZE, self.tokenizer.max_content_tokens)
        texts = [self.tokenizer.build(row) for row in rng.integers(0, self.vocab_size, shape)]
        size = self.pictures.preprocessing
        # From pictures of one colour to noise.
        spread = np.linspace(0, 255, _PROBE_SIZE)[:, None, None, None]
        noise = rng.uniform(-0.5, 0.5, (_PROBE_SIZE, size.height, size.width, 3)) * spread
        colours = rng.uniform(0, 255, (_PROBE_SIZE, 1, 1, 3))
        pictures = list(np.clip(colours + noise, 0, 255).astype(np.uint8))

        def texts_by(tower: _Tower) -> Callable[[], Vectors]:
            def run() -> Vectors:
                self._tower = tower
                return self.embed(texts)

            return run

        def pictures_by(tower: _Tower) -> Callable[[], Vectors]:
            def run() -> Vectors:
                self.pictures.tower = tower
                return self.pictures.embed(pictures)

            return run

        return [
            compare(texts_by(float32[0]), texts_by(bfloat16[0]), MIN_COSINE),
            compare(pictures_by(float32[1]), pictures_by(bfloat16[1]), MIN_COSINE),
        ]


class ClipPictures:
    """The `PictureEncoder` of a `ClipEncoder`."""

    def __init__(
        self, tower: _Tower, preprocessing: Preprocessing, logit_scale: float, device: torch.device
    ) -> None:
        self.tower = tower
        self.preprocessing = preprocessing
        self.logit_scale = logit_scale
        self.num_tokens: int = tower.model.embeddings.num_positions
        self._device = device
        self._scale = torch.tensor(preprocessing.scale, device=device)
        self._offset = torch.tensor(preprocessing.offset, device=device)

    @torch.inference_mode()
    def embed(self, pictures: Sequence[Pixels]) -> Vectors:
        """One vector for each, `[num_pictures, dimensions]`, in float32."""
        pixels = torch.from_numpy(np.stack(pictures)).to(self._device)
        values = torch.addcmul(self._offset, pixels.float(), self._scale)  # [B, height, width, 3]
        channels_first = values.permute(0, 3, 1, 2)  # [B, 3, height, width]
        vectors: Vectors = self.tower(pixel_values=channels_first)
        return vectors


class _Tower(nn.Module):
    """One of CLIP's transformers and its projection into the common space."""

    def __init__(self, model: Any, projection: nn.Linear) -> None:
        super().__init__()
        self.model = model
        self._projection = projection

    @property
    def dtype(self) -> torch.dtype:
        return self._projection.weight.dtype

    def forward(self, **inputs: torch.Tensor) -> Vectors:
        pooled = self.model(**inputs).pooler_output
        vectors = nn.functional.normalize(self._projection(pooled).float(), dim=-1)
        result: Vectors = vectors.cpu().numpy()
        return result


def _is_clip(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and _read_json(config).get("model_type") == "clip"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFolderError(f"{path}: {error}") from error


def _refuse_prompts(options: EncoderOptions) -> None:
    for name in ("query_prompt", "passage_prompt"):
        if getattr(options, name):
            raise ModelFolderError(f"{name}: a CLIP model has no prompts; leave it out")


def _load(folder: Path) -> Any:
    """The model in float32. Raises `ModelFolderError`, also where weights are missing or unused."""
    try:
        model, found = CLIPModel.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelFolderError(f"{folder}: {error}") from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if found[what]:
            names = ", ".join(sorted(map(str, found[what]))[:3])
            raise ModelFolderError(f"{folder}: {what.replace('_keys', ' weights')}: {names}")
    return model.eval()


def _tokenizer(folder: Path, text_config: Any, options: EncoderOptions) -> InputTokenizer:
    positions: int = text_config.max_position_embeddings
    if options.max_input_tokens is not None and options.max_input_tokens > positions:
        raise ModelFolderError(
            f"max_input_tokens: {folder.name} has positions for {positions} tokens, "
            f"not {options.max_input_tokens}"
        )
    try:
        hf_tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        limit = options.max_input_tokens or min(hf_tokenizer.model_max_length, positions)
        settings = TokenizerSettings(int(limit), hf_tokenizer.truncation_side == "left")
        return InputTokenizer(hf_tokenizer.backend_tokenizer, settings)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelFolderError(f"{folder}: tokenizer: {error}") from error


def _end_id(folder: Path, tokenizer: InputTokenizer, text_config: Any) -> int:
    """The token at which a text's vector is taken, which every text must end with."""
    last = tokenizer.build([]).ids[-1]
    expected: int = text_config.eos_token_id
    if expected not in (last, _LEGACY_EOS):
        raise ModelFolderError(
            f"{folder}: text_config.eos_token_id is {expected}, but the tokenizer ends texts "
            f"with {last}"
        )
    return last
