"""
The method of a job, and the module that trains by it. Each is imported only when it is asked for.
"""

from __future__ import annotations

from reconciler.selfhosted.training import bases, settings
from reconciler.selfhosted.training.failures import Failure
from reconciler.selfhosted.training.folder import JobFolder, Story
from reconciler.selfhosted.training.job import Job, PreferenceMethod, ReinforcementMethod, SupervisedMethod


def train(folder: JobFolder, story: Story, job: Job, base: bases.Base) -> settings.Trained:
    """Train to the end, from the newest resume state. Raises Failure, or Stopped after a SIGTERM."""
    settings.quiet(job)
    if base.sees and not isinstance(job.method, SupervisedMethod):
        message = (
            f"the method {job.method.type} trains models that read text only; use supervised, or another base"
        )
        raise Failure("invalid_model", message)
    match job.method:
        case SupervisedMethod(supervised=wanted) if base.sees:
            from reconciler.selfhosted.training import vision

            return vision.train(folder, story, job, base, wanted.hyperparameters)
        case SupervisedMethod(supervised=wanted):
            from reconciler.selfhosted.training import supervised

            return supervised.train(folder, story, job, base, wanted.hyperparameters)
        case PreferenceMethod(dpo=asked):
            from reconciler.selfhosted.training import preference

            return preference.train(folder, story, job, base, asked.hyperparameters)
        case ReinforcementMethod(reinforcement=asked):
            from reconciler.selfhosted.training import reinforcement

            return reinforcement.train(folder, story, job, base, asked)
