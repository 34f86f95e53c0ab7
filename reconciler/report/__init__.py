"""
Evidence that people read: what was measured, as one offline page, Markdown, JUnit, CSV or JSON Lines.

`collect` asks the platform, everything else here turns values into text. Items and answers come from
anybody, so nothing is text in a page before it was escaped.
"""
