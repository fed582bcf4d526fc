"""The HTTP door: an OpenAI-compatible API that speaks gRPC to the services behind it."""
