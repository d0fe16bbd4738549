"""``python -m featx`` is the ``featx`` command."""

from featx.cli.main import main

if __name__ == "__main__":
    main()
