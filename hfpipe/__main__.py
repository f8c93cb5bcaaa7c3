"""`python -m hfpipe` is the command `hfpipe`."""

from hfpipe.cli.app import main

if __name__ == "__main__":
    main()
