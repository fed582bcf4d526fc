"""The HTTP routes, one module per group. They join schemas, translation, calls and rendering."""
