"""The mixture-of-experts service: a router and the shards of experts behind it; see README.md."""
