"""`python -m dqn_jax` is `dqn-jax`."""

import sys

from dqn_jax.cli.main import main

sys.exit(main())
