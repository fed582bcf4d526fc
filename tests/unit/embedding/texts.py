"""Texts that tests embed: short, long, odd."""

from __future__ import annotations

TEXTS = (
    "The observatory of Kelm opened in 1911.",
    "a",
    "  spaces   before, within and after  ",
    "line\nbreak\ttab",
    "naïve — ünïcode ✓ 日本語 🙂",
    "[CLS] written out [SEP] and [MASK]",
    "word " * 50,
    "UPPER lower 1234567890 !?;:",
    "".join(chr(65 + number % 26) for number in range(200)),
)
