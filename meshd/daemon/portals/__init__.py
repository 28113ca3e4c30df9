"""The portals of a device's mesh: which there are, what is published to them and read from them, and what proves it."""
