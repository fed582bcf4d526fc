"""From Python arguments to the protobuf requests of the contract: one module for each service.

What cannot be put into the message at all is refused here, by name; whether a value makes sense
for a model or a collection is for the server to say.
"""
