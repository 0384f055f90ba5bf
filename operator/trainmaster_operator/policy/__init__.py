"""What the operator decides: a pure function from what was observed to what is to be done. No clock, no I/O."""
