"""The programs of this repository, which the wheel installs as the package ``adafocus`` with a command of that name."""
