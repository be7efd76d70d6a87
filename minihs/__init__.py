# SPDX-License-Identifier: Apache-2.0
"""minihs: a Matrix homeserver that one person can own."""

__version__ = "0.1.0"
