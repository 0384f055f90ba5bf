"""The user's code on the machine that runs it: brought there, verified, with the packages that it asks for."""
