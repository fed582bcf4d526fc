"""The loop of steps: pictures join and leave a running batch. Knows no protobuf and no Ray."""
