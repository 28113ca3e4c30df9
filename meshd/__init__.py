"""meshd: a person's own devices keep passwords, keys and settings in step, end-to-end encrypted."""

__version__ = "0.1.0"
