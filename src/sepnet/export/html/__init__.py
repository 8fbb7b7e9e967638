"""One HTML page that runs the int8 network in a browser, with no network access."""
