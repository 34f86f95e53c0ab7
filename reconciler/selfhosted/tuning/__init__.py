"""Fine-tuning jobs: their books, their folders, and the processes that train them."""
