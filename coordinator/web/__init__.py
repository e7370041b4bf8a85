"""REST with OpenAPI and the dashboard. It shows no individual value because it has none."""
