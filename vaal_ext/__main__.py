"""`python -m vaal_ext`: the same as `vaal-ext`."""

import sys

from vaal_ext.cli.app import main

sys.exit(main())
