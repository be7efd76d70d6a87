# SPDX-License-Identifier: Apache-2.0
"""`minihs` and `python -m minihs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# structlog loads rich where it finds it, for tracebacks that this log has plain: 3 MiB, a twelfth of a start.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None: not to be imported


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--shrink-picture"]:
        from minihs.media import shrink  # the single file, called by itself (media/shrinker.py)

        return shrink.main(list(arguments[1:]))
    from minihs.cli.parser import run  # imported late, so that --version and --help are quick

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
