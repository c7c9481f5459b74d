"""What ``python -m engine`` executes."""

import sys

from engine.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
