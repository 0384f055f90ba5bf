"""What a search decides: which trial comes next, which one ends, what is remembered. Imports neither Ray nor torch."""
