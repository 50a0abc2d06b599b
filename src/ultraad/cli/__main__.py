"""``python -m ultraad.cli``, for environments where scripts are not on the path."""

from ultraad.cli import main

if __name__ == "__main__":
    main()
