"""The services of Orrery. No service imports another; what they share is `services.runtime`."""
