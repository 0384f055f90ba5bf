"""`trainmaster tune`: what a search will do, what it has found, and how it continues."""
