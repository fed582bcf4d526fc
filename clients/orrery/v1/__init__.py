"""Generated from `proto/orrery/v1` by `make proto`. Do not edit."""
