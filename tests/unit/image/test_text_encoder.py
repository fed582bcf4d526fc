"""What is kept of the latest prompts. That the encoding is right, the equality tests show."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from services.image.model.text_encoder import TextEncoder
from tests.fakes.random_diffusion import random_diffusion_folder

_BYTES = 77 * 16 * 4  # of one prompt


class _Counting(torch.nn.Module):
    """Counts the calls of the text model behind it."""

    def __init__(self, model: CLIPTextModel) -> None:
        super().__init__()
        self.model, self.config, self.device = model, model.config, model.device
        self.num_calls = 0

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.num_calls += 1
        result: tuple[torch.Tensor, ...] = self.model(**inputs)
        return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_diffusion_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(folder: Path) -> _Counting:
    return _Counting(CLIPTextModel.from_pretrained(folder / "text_encoder").eval())


def _encoder(folder: Path, model: _Counting, num_kept: int) -> TextEncoder:
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return TextEncoder(tokenizer, model, max_cache_bytes=num_kept * _BYTES)


def test_repeated_text_is_encoded_once(folder: Path, model: _Counting) -> None:
    encoder = _encoder(folder, model, num_kept=4)
    first = encoder.encode(["a circle", ""])
    again = encoder.encode(["", "a circle", ""])
    assert model.num_calls == 2
    assert torch.equal(again, first[[1, 0, 1]])


def test_least_recently_used_text_is_dropped(folder: Path, model: _Counting) -> None:
    encoder = _encoder(folder, model, num_kept=2)
    for text in ("a", "b", "a", "c"):
        encoder.encode([text])
    assert encoder.cache_bytes == 2 * _BYTES
    encoder.encode(["a", "c"])
    assert model.num_calls == 3
    encoder.encode(["b"])
    assert model.num_calls == 4


def test_text_is_encoded_the_same_whatever_is_beside_it(folder: Path, model: _Counting) -> None:
    alone = _encoder(folder, model, num_kept=0).encode(["a circle"])[0]
    beside = _encoder(folder, model, num_kept=0).encode(["x", "a circle", "a square"])[1]
    assert torch.equal(alone, beside)


def test_threads_share_the_cache(folder: Path, model: _Counting) -> None:
    encoder = _encoder(folder, model, num_kept=3)
    texts = [str(i % 7) for i in range(200)]
    with ThreadPoolExecutor(4) as threads:
        counts = threads.map(encoder.count_tokens, texts)
        encoded = list(threads.map(lambda text: encoder.encode([text]), texts))
    assert set(counts) == {3}
    for text, each in zip(texts, encoded, strict=True):
        assert torch.equal(each, encoded[int(text)])
    assert encoder.cache_bytes == 3 * _BYTES
