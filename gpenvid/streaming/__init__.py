"""Live: sources to outputs for weeks. A session has cameras; `together` restores the faces of all in one batch."""
