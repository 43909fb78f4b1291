from hypothesis import settings

settings.register_profile("project", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("project")

collect_ignore = ["soak/__main__.py", "soak/guided.py"]  # programs of their own
