"""The decoders, one file per architecture, each readable top to bottom."""
