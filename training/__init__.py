"""Recipes that make Orrery's demo models. Nothing in `services` imports this package."""
