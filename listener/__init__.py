"""The doors: DIMSE, HTTP, the command line. The only room that knows the whole configuration."""
