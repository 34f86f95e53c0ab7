"""
The job process: `python -m reconciler.selfhosted.training JOB_DIR` trains one model and ends.

It knows a folder and nothing else: no database, no server, no network. What it was asked is in
`job.json`, what it says goes to `events.jsonl`, what it made is in `model/`, and `result.json` is
written last. Killed at any moment and started again, it goes on from its last resume state and ends, on
a CPU, with the same weights. One file per training method (`supervised.py`); everything that reads rows
or writes the folder is free of torch, so a bad file is refused in a fraction of a second.
"""
