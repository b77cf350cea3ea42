"""Training: sheets of faces, composed pictures, degradations, losses, loops. Nothing outside the command imports it."""
