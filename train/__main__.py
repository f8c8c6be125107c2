import sys

from train.cli import main

if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as mistake:  # a user's mistake is one line, not a traceback
        sys.exit(f"error: {mistake}")
