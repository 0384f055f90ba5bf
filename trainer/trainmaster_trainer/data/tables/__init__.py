"""Tables: read whole, typed by whole columns, given roles, and turned into numbers with what the train split says."""
