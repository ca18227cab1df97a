"""`slimmoa bench`: what its commands read and print."""
