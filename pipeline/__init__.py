"""One study's way from pixels to a delivered result."""
