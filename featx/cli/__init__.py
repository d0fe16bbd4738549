"""The ``featx`` command: its subcommands, options, output and demo."""
