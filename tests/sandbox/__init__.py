"""A loopback control plane for tests and for the demo: ``python -m tests.sandbox``."""
