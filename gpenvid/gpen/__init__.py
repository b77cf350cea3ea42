"""The network. Knows nothing about video."""
