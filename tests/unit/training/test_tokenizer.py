"""The tokenizer gives back any text; the chat template renders what the corpus is written in."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from training.corpus import FULL, samples
from training.data import batches, encode_sample
from training.prompt import BOS, END, SPECIAL_TOKENS, Document, format_question
from training.questions import QuestionType, held_out_cases
from training.tokenizer import VOCAB_SIZE, save_tokenizer, train_tokenizer
from training.validate import render_case

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(num_samples=600)


@pytest.fixture(scope="module")
def saved(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(tokenizer, folder)
    return AutoTokenizer.from_pretrained(folder)


def test_vocabulary_has_every_byte_and_special_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() <= VOCAB_SIZE
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(7))
    single = [token for token in tokenizer.get_vocab() if len(token) == 1]
    assert len(single) == 256


@settings(deadline=None, max_examples=150)
@given(text=st.text())
def test_any_text_survives_encoding_and_decoding(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if not any(special in text for special in SPECIAL_TOKENS):
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_digits_are_tokens_of_their_own(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("built in 1874", add_special_tokens=False).tokens
    assert tokens[-4:] == ["1", "8", "7", "4"]


def test_name_has_the_same_tokens_at_a_line_start_and_after_a_space(tokenizer: Tokenizer) -> None:
    name = tokenizer.encode("Veloria", add_special_tokens=False).ids
    for context in ("\nVeloria", "in Veloria", "[1] Veloria"):
        assert tokenizer.encode(context, add_special_tokens=False).ids[-len(name) :] == name


def test_encoding_a_text_begins_with_bos(saved: PreTrainedTokenizerBase) -> None:
    assert saved("Hello").input_ids[0] == saved.bos_token_id == saved.convert_tokens_to_ids(BOS)
    assert saved.eos_token_id == saved.convert_tokens_to_ids(END)


def test_chat_template_renders_the_prompt_the_model_was_trained_on(
    saved: PreTrainedTokenizerBase, tokenizer: Tokenizer
) -> None:
    case = held_out_cases(QuestionType.ANSWERED, 1)[0]
    content = format_question(case.documents, case.question.text)
    rendered = saved.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    assert rendered == render_case(case)[0]
    ids = saved(rendered, add_special_tokens=False).input_ids
    assert ids == tokenizer.encode(rendered, add_special_tokens=False).ids


def test_chat_template_refuses_an_unknown_role(saved: PreTrainedTokenizerBase) -> None:
    with pytest.raises(Exception, match="role must be system, user or assistant"):
        saved.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_documents_are_numbered_from_one() -> None:
    documents = [Document("Aba", "Aba is red."), Document("Obo", "Obo is blue.")]
    expected = "[1] Aba\nAba is red.\n\n[2] Obo\nObo is blue.\n\nQuestion: What is Obo?"
    assert format_question(documents, "What is Obo?") == expected
    assert format_question([], "What is Obo?") == "Question: What is Obo?"


def test_segments_encode_like_the_whole_sample(tokenizer: Tokenizer) -> None:
    for sample in islice(samples(FULL, seed=3), 50):
        ids, weights = encode_sample(tokenizer, sample)
        text = "".join(segment.text for segment in sample)
        assert ids == tokenizer.encode(text, add_special_tokens=False).ids
        assert len(weights) == len(ids)


def test_batches_repeat_and_keep_to_their_size(tokenizer: Tokenizer) -> None:
    first = list(islice(batches(tokenizer, FULL, 1, 4096), 6))
    again = list(islice(batches(tokenizer, FULL, 1, 4096), 6))
    for (_, _, one), (_, _, other) in zip(first, again, strict=True):
        assert (one.token_ids == other.token_ids).all()
        assert one.token_ids.size <= 4096
        assert one.token_ids.shape[1] <= 1024
        assert (one.weights > 0).sum() <= one.num_tokens


@pytest.mark.parametrize("name", ["orrery-llama", "orrery-gpt"])
def test_committed_models_share_the_tokenizer(name: str) -> None:
    text = (MODELS / name / "tokenizer.json").read_text()
    assert text == (MODELS / "orrery-llama" / "tokenizer.json").read_text()
