# SPDX-License-Identifier: Apache-2.0
"""Settings for all tests."""

from __future__ import annotations

from hypothesis import settings

# No deadline: on a busy machine an example can take any time without anything being wrong. What must be fast
# has a test of its own that counts CPU time.
settings.register_profile("minihs", deadline=None)
settings.load_profile("minihs")
