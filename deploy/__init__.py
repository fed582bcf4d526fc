"""How the platform is started: Serve configuration and the launcher for one machine."""
