"""What clients send and get over HTTP, as pydantic models; they are also what `/docs` shows.

Knows nothing of gRPC or of how a request is carried out.
"""
