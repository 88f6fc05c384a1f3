"""Property tests: the same examples on every machine, few enough for every day."""

import hypothesis

hypothesis.settings.register_profile(
    "house",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("house")
