# SPDX-License-Identifier: Apache-2.0
"""Real homeserver processes on loopback, and clients to drive them.

A homeserver is a process with a server name, a client port and a log (`homeserver.py`); there are two
kinds, `synapse.py` and `minihs.py`. What asks them things (`client.py`, `peer.py`) can't tell which one
it talks to. The interop suite, the crash test, the browser test and scripts/bench all stand on this
package.
"""
