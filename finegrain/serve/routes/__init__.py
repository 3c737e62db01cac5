"""The routes of the service: searches, pictures, and the service itself."""
