"""One file per way to reach a world; the wrappers narrow what one may do there."""
