"""Everything that touches PyAV. Knows nothing about faces."""
