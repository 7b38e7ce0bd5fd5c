"""`python -m redline.load.paced`."""

from redline.load.paced.server import main

if __name__ == "__main__":
    main()
