"""Measuring: evals, their runs, and the graders as an API of their own."""
