"""Answers from models: chat, responses, embeddings and batches, and how one sampling request is read."""
