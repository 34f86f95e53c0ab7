"""
The serving engine: a process of its own that generates text, and the client that starts it and talks to it.

Import from here; nothing here imports torch. The model side (scheduler, batch, slots, sampling, shelf,
prompt, grammar) is imported by the engine process only, on its model thread.
"""

from reconciler.selfhosted.engine.client import Engine
from reconciler.selfhosted.engine.values import Answer, Ask, Embedding, EngineError, Text

__all__ = ["Answer", "Ask", "Embedding", "Engine", "EngineError", "Text"]
