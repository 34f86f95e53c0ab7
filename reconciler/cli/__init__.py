"""Commands: wiring here, words in `render`."""
