import os
import signal
import sys

# Threads that wait by spinning take the cores from those that work: on two cores shared with other programs, a step of
# the small preset takes 600 ms with OpenMP's default and 50 ms with this. OpenMP reads it when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from train.cli import main
from train.outputs import in_a_sentence
from train.termination import exit_at_once

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, exit_at_once)
    try:
        main()
    except (ValueError, OSError) as mistake:  # a user's mistake, or a full disk, is one line, not a traceback
        sys.exit(f"error: {in_a_sentence(mistake)}")
