"""What is remembered, and nothing else. SQLAlchemy lives here only."""
