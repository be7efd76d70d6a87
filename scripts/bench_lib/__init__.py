# SPDX-License-Identifier: Apache-2.0
"""scripts/bench: the same client code against minihs and against Synapse with SQLite, both running in
one run.

Each scenario runs on one server and then on the other, in an order that alternates by round, so that a
slow minute of the machine doesn't fall on one of them alone. CPU time is what /proc says of the server's
process; wall time on a shared machine moves by factors, so trust the ratios.
"""
