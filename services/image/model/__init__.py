"""A diffusers folder in memory, and what is done to it at load. Knows no request."""
