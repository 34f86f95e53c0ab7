"""What a CI job tells the people of a pull request, and what it learns from them: GitHub's side of it."""
