"""The PostgreSQL a newcomer does not have to install: a small supervisor over the programs of a wheel."""
