"""The demo models' tokenizer: byte-level BPE, digits one by one, names alike wherever they stand.

The space before a capital or a digit is a token of its own, so that a name has the same tokens at
the start of a line, after a space and as an answer: a small model copies tokens, not spellings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from training.corpus import COPYING, FULL, samples
from training.prompt import BOS, CHAT_TEMPLATE, END, PAD, SPECIAL_TOKENS

VOCAB_SIZE = 2048
_PIECES = (
    r"\p{N}"  # every digit alone
    r"| (?=[\p{Lu}\p{N}])"  # the space before a name or a number
    r"| ?\p{Ll}+|\p{Lu}\p{Ll}*|\p{L}+"
    r"| ?[^\s\p{L}\p{N}]+"
    r"|\s+(?!\S)|\s+"
)


def train_tokenizer(num_samples: int = 6000, seed: int = 1) -> Tokenizer:
    """Train the tokenizer on samples of the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(num_samples, seed), trainer)
    bos_id = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bos_id)]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json (with the chat template) into `folder`."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    wrapped.save_pretrained(folder, save_jinja_files=False)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("backend", None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # a name older readers know too
    path.write_text(json.dumps(config, indent=2) + "\n")


def _texts(num_samples: int, seed: int) -> Iterable[str]:
    special = set(SPECIAL_TOKENS)
    for mix, share in ((FULL, 1.0), (COPYING, 0.1)):
        for sample in islice(samples(mix, seed), int(num_samples * share)):
            yield from (segment.text for segment in sample if segment.text not in special)
