# SPDX-License-Identifier: Apache-2.0
"""What clients read: /sync, history, state, receipts and typing, and who may see what."""
