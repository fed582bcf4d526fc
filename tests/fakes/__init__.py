"""Stand-ins for tests: real servicers over toy backends. Never shipped."""
