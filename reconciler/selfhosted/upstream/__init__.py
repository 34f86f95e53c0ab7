"""Models that run elsewhere, behind any OpenAI-compatible server."""
