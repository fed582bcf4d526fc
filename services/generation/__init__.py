"""The generation service: decoding, scoring and tokenizing with one language model."""
