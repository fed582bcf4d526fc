"""From what clients wrote, checked by `schemas`, to the contract's messages.

Knows nothing of how they are sent.
"""
