"""Which models there are, and the names that lead to them."""
