"""Token ids as sentence-transformers would feed them to the model."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, processors

from services.embedding.tokenization import InputTokenizer, TokenizerSettings
from tests.unit.embedding.texts import TEXTS


@pytest.fixture(scope="module")
def hf_tokenizer(minilm_folder: str) -> object:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(minilm_folder)


def test_ids_are_those_of_the_models_own_tokenizer(hf_tokenizer) -> None:
    ours = InputTokenizer(hf_tokenizer.backend_tokenizer, TokenizerSettings(512))
    for text, content in zip(TEXTS, ours.content_ids(TEXTS), strict=True):
        assert ours.build(content).ids == hf_tokenizer(text)["input_ids"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_cutting_keeps_the_special_tokens_and_the_right_end(hf_tokenizer, side: str) -> None:
    settings = TokenizerSettings(10, truncate_left=side == "left")
    ours = InputTokenizer(hf_tokenizer.backend_tokenizer, settings)
    text = "one two three four five six seven eight nine ten eleven twelve"
    built = ours.build(ours.content_ids([text])[0])
    hf_tokenizer.truncation_side = side
    assert built.ids == hf_tokenizer(text, truncation=True, max_length=10)["input_ids"]
    assert built.truncated
    assert not ours.build(ours.content_ids(["one two"])[0]).truncated


def test_the_models_own_tokenizer_is_left_as_it_was(hf_tokenizer) -> None:
    hf_tokenizer(["a b c d"], truncation=True, max_length=3)
    ours = InputTokenizer(hf_tokenizer.backend_tokenizer, TokenizerSettings(512))
    assert len(ours.content_ids(["a b c d"])[0]) == 4


def test_digests_differ_by_ids_and_by_prompt(hf_tokenizer) -> None:
    ours = InputTokenizer(hf_tokenizer.backend_tokenizer, TokenizerSettings(16))
    inputs = [ours.build([5, 6]), ours.build([5, 7]), ours.build([5, 6], 3), ours.build([5])]
    assert len({item.digest() for item in inputs}) == 4
    assert ours.build([5, 6]).digest() == inputs[0].digest()


def test_special_tokens_that_do_not_stand_around_the_content_are_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[X]": 1}, unk_token="[X]"))
    tokenizer.add_special_tokens(["[X]"])
    InputTokenizer(tokenizer, TokenizerSettings(4))  # none at all is fine
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[X] [X]", special_tokens=[("[X]", 1)]
    )
    with pytest.raises(ValueError, match="special tokens"):
        InputTokenizer(tokenizer, TokenizerSettings(4))


def test_a_context_without_room_for_content_is_refused(hf_tokenizer) -> None:
    with pytest.raises(ValueError, match="holds no content"):
        InputTokenizer(hf_tokenizer.backend_tokenizer, TokenizerSettings(2))
