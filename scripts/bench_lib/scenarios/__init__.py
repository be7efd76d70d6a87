# SPDX-License-Identifier: Apache-2.0
"""The scenarios: each asks one server for one thing and returns its figures by name."""
