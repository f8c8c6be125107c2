"""``python -m datasets describe SET|FILE...``"""

import sys

from datasets import describe

USAGE = "python -m datasets describe SET|FILE... [options]; describe --help has the options"


def main(arguments: list[str]) -> None:
    if arguments[:1] != ["describe"]:
        asked = arguments[:1] in (["-h"], ["--help"])
        sys.exit(print(USAGE) if asked else f"error: expected the command describe, got {arguments[:1]}: {USAGE}")
    try:
        describe.main(arguments[1:])
    except (ValueError, OSError, ImportError) as mistake:  # a user's mistake is one line, not a traceback
        sys.exit(f"error: {mistake}")


if __name__ == "__main__":
    main(sys.argv[1:])
