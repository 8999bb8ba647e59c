"""``python -m handscope`` is the ``handscope`` command."""

import sys

from handscope.cli import main

sys.exit(main())
