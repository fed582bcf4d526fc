from __future__ import annotations

from services.moe.router.token_classes import token_classes


def test_tokens_are_told_apart_by_their_text() -> None:
    texts = ["", "The", " quick", "est", " 42", ",", "\n", " (", "x", "5", "\ufffd"]
    assert token_classes(texts) == [
        *("other", "word", "word", "word_part", "number", "punctuation"),
        *("space", "punctuation", "word", "number", "other"),
    ]
