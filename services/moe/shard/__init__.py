"""An expert shard: holds some experts of a model and computes them."""
