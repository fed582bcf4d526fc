"""Results as pictures. The only part of the package that needs matplotlib, and only when called."""
