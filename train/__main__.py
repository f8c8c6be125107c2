import os
import sys

# Threads that wait by spinning take the cores from those that work: on two cores shared with other programs, a step of
# the small preset takes 600 ms with OpenMP's default and 50 ms with this. OpenMP reads it when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from train.cli import main

if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as mistake:  # a user's mistake is one line, not a traceback
        sys.exit(f"error: {mistake}")
