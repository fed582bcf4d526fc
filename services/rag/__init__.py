"""The RAG service: questions answered from a collection of documents, with citations."""
