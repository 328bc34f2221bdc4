"""Steps of the GitHub actions, as commands of the hidden group `polar-iac ci`."""
