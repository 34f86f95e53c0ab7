"""
How many tokens something has, before anybody pays for it.

Exact where the model's tokenizer and chat template lie on this machine: the same text goes through the
same tokenizer as in training. Elsewhere a range from the bytes. Needs no network, no torch, no transformers.
"""

from reconciler.tokens.counting import Counter, Source
from reconciler.tokens.tallies import Count

__all__ = ["Count", "Counter", "Source"]
