"""The log of all changes, its snapshots, and replicas that follow it."""
