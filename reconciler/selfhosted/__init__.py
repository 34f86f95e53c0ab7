"""
The platform: OpenAI's files, fine-tuning, evals, chat and models API over
open-weight models on your own machine.

An island: HTTP in, HTTP out. It imports nothing else of `reconciler` and nothing else imports it.
The server process answers and keeps books and never imports torch; trainers and the serving engine
are processes of their own, started when first needed.
"""
