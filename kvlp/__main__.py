"""`python -m kvlp` is `kvlp`, for launchers that start modules: `torchrun -m kvlp pretrain ...`."""

from kvlp.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
