# SPDX-License-Identifier: Apache-2.0
"""The Federation API (spec: server-server-api): one module per group of endpoints."""
