"""The index of a collection: dense and sparse search, filters, immutable generations."""
