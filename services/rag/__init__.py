"""The rag service; see README.md."""
