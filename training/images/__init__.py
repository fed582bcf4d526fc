"""The recipe's picture models: a drawn world of shapes, and the models trained on it."""
