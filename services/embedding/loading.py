"""Loads the models of one application, in the one thread that will run them.

Which kind of encoder serves a folder is decided here, by what the folder holds. Knows nothing of
gRPC or Ray.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import transformers

from services.embedding.clip_encoder import ClipEncoder, find_clip
from services.embedding.config import EmbeddingConfig
from services.embedding.cross_encoder import PairScorer, ScorerOptions
from services.embedding.encoder import Encoder, EncoderOptions
from services.embedding.folder import find_folder
from services.embedding.text_encoder import TextEncoder
from services.engine.devices import use_threads
from services.runtime.model_files import ModelFolderError

__all__ = ["Models", "load_encoder", "load_models"]


@dataclass(frozen=True, slots=True)
class Models:
    """What was loaded, and the one thread that may run it."""

    encoder: Encoder
    scorer: PairScorer | None
    worker: ThreadPoolExecutor

    def close(self) -> None:
        """Ends the thread once it is idle."""
        self.worker.shutdown(wait=False)


async def load_models(config: EmbeddingConfig, folder: str, scorer_folder: str | None) -> Models:
    """Loads in the worker thread, so that the event loop goes on. Raises `ModelFolderError`."""
    worker = ThreadPoolExecutor(
        max_workers=1,
        thread_name_prefix="embedding",
        initializer=partial(use_threads, config.num_threads),
    )

    def load() -> tuple[Encoder, PairScorer | None]:
        transformers.utils.logging.disable_progress_bar()
        encoder = load_encoder(folder, _encoder_options(config))
        if config.pictures is not None and encoder.pictures is None:
            raise ModelFolderError(f"pictures: {folder} embeds texts alone; leave it out")
        if config.reranker is None or scorer_folder is None:
            return encoder, None
        return encoder, PairScorer.load(scorer_folder, _scorer_options(config))

    try:
        encoder, scorer = await asyncio.get_running_loop().run_in_executor(worker, load)
    except BaseException:
        worker.shutdown(wait=False, cancel_futures=True)
        raise
    return Models(encoder, scorer, worker)


def load_encoder(name: str, options: EncoderOptions) -> Encoder:
    """From a folder or a hub name: CLIP where the folder holds it. Raises `ModelFolderError`."""
    folder = find_folder(name)
    clip = find_clip(folder)
    return TextEncoder(folder, options) if clip is None else ClipEncoder(clip, options)


def _encoder_options(config: EmbeddingConfig) -> EncoderOptions:
    return EncoderOptions(
        dtype=config.dtype,
        device=config.device,
        max_input_tokens=config.max_input_tokens,
        query_prompt=config.query_prompt,
        passage_prompt=config.passage_prompt,
        normalize=config.normalize,
    )


def _scorer_options(config: EmbeddingConfig) -> ScorerOptions:
    assert config.reranker is not None
    return ScorerOptions(
        dtype=config.reranker.dtype,
        device=config.device,
        max_pair_tokens=config.reranker.max_pair_tokens,
    )
