# SPDX-License-Identifier: Apache-2.0
"""Tests of what clients read: /sync, history, visibility, receipts, typing."""
