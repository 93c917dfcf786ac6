"""`python -m rowhouse` is the command `rowhouse`."""

from rowhouse.cli import main

if __name__ == "__main__":
    main()
