"""``python -m brainage``: the command line without its script on the path."""

from brainage.cli.main import run

if __name__ == "__main__":
    run()
