"""The router: gates, placement, dispatch, load and balance."""
