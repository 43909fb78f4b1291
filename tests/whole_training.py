"""A whole training with fixed reports."""


def train(trainer, epsilon, **options):
    """Train all rounds of the plan, and return the finished training."""
    training = trainer.begin(**options)
    while not training.over:
        training.step(epsilon)
    return training
