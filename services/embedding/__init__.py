"""The embedding service; see README.md."""
