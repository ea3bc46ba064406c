"""The scoring service: its server, routes, access and documents."""
