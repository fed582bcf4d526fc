"""The parts that decoders are built of, one file per kind; they know no checkpoint and no cache."""
