"""Examples, each a module that runs by itself: `python -m jaxtrader.examples.own_agent`."""
