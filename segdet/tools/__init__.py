"""Looking at this machine: environment and benchmark."""
