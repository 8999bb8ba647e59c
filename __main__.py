"""``python -m handscope`` is the ``handscope`` command."""

import sys

from .cli import main

sys.exit(main())
