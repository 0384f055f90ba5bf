"""`python -m trainmaster_operator`: the operator's process."""

from __future__ import annotations

import asyncio
import logging
import sys

# kopf imports these clients wherever they are installed, for nothing here: 50 MB and a second of every start.
sys.modules |= dict.fromkeys(("kubernetes", "kubernetes_asyncio", "pykube"))  # type: ignore[arg-type]

import kopf  # noqa: E402

from trainmaster_operator.runtime import app, kopf_adapter  # noqa: E402
from trainmaster_operator.runtime.config import parse  # noqa: E402


def main() -> None:
    """Run until stopped. Ends with 1 when the lease is lost or a part fails: its supervisor restarts it."""
    config = parse()
    form = kopf.LogFormat.JSON if config.log_format == "json" else kopf.LogFormat.FULL
    kopf.configure(verbose=config.verbose, log_format=form)
    kopf_adapter.quiet()
    try:
        asyncio.run(app.main(config))
    except kopf.LoginError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        logging.getLogger(__name__).info("stopped")


if __name__ == "__main__":
    main()
