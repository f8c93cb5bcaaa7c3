"""`python -m hfpipe` is the command `hfpipe`."""

from hfpipe.cli import main

if __name__ == "__main__":
    main()
