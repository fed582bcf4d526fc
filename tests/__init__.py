"""Tests of everything; `tests.fakes` holds what stands in for real parts."""
