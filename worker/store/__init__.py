"""What is known: the tables, and the adapters that are the only ones to touch them."""
