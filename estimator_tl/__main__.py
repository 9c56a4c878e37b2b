"""``python -m estimator_tl`` is the command ``estimator-tl``."""

import sys

from estimator_tl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
