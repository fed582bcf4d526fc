"""From protobuf messages to the results of `orrery.results`: one module for each service."""
