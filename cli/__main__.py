"""The command `slimmoa`, as the installed script, `python -m cli` and Ray jobs call it."""

import signal


def main() -> None:
    """Run the command line, and end with the exit code of a signal if one comes."""
    # Until `stopping` watches, a Ctrl-C ends the process without Python's traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cli import stopping

    stopping.run(_command)


def _command() -> None:
    from cli.main import app  # only now: the imports take long enough for a Ctrl-C

    app()


if __name__ == "__main__":
    main()
