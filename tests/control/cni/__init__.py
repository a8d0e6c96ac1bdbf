"""CNI calls as a runtime makes them, against a real service."""
