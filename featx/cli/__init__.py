"""The ``featx`` command: its jobs, options, tables and demo."""
