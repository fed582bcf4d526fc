"""Reads files into documents and cuts documents into chunks. Knows nothing of collections."""
