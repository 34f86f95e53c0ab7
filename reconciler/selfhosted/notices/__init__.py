"""Webhooks: what is told to whom, and told again until it was heard."""
