"""`python -m polar_iac`."""

from polar_iac.cli.main import main

if __name__ == "__main__":
    main()
