"""`python -m polar_iac`."""

from polar_iac.cli import main

if __name__ == "__main__":
    main()
