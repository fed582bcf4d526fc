"""The retrieval service; see README.md."""
