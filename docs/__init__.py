"""The documentation: pages, and the Python that makes their tables and their site."""
