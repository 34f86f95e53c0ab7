"""What is kept: rows in a database, bytes in a folder, and the files and uploads that people bring."""
