"""Everything that is geometry and time. Knows nothing about files or networks."""
