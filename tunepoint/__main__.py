"""`python -m tunepoint`: the command line."""

from tunepoint.cli.app import main

if __name__ == "__main__":
    main()
