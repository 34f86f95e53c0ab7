"""
Money and time: what something will take, what may be spent, and what was.

`work` counts, `pace` knows how long things took, `expense` prices both, `budgets` say no, the `ledger`
remembers; `accounts` is a project's own set of all of them. The first four decide and touch nothing but rows.
"""
