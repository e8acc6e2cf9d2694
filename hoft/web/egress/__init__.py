"""Where services are: requests of peers are performed."""
