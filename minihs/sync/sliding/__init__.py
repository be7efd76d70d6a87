# SPDX-License-Identifier: Apache-2.0
"""Sliding sync (MSC4186): a second view of the change log that /sync tells of."""
