"""The portal's process: HTTP in front, one sequencer, SQLite behind, and the log that nobody can rewrite."""
