# SPDX-License-Identifier: Apache-2.0
"""`minihs` and `python -m minihs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    from minihs.cli.parser import run  # imported late, so that --version and --help are quick

    return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
