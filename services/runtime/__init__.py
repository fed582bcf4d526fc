"""What every service shares: errors, the RPC wrapper, settings, logging, metrics, health.

Knows nothing of torch, of Ray's deployments or of any service's domain.
"""
