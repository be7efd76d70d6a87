# SPDX-License-Identifier: Apache-2.0
"""Settings for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: on a busy machine an example can take any time without anything being wrong. What must be fast
# has a test of its own that counts CPU time.
settings.register_profile("minihs", deadline=None)
# A new example must not stop somebody else's change from landing: where CI is set, the examples are always
# the same. New ones are looked for everywhere else.
settings.register_profile("ci", deadline=None, derandomize=True)
# For tests/fuzz: pytest --hypothesis-profile=long, which counts more than what is loaded here.
settings.register_profile("long", deadline=None, max_examples=5000)
settings.load_profile("ci" if os.environ.get("CI") else "minihs")
