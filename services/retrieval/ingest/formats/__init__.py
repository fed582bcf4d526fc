"""One module per format: bytes or text in, a `ParsedDocument` out."""
