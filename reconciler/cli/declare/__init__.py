"""What can be typed: arguments, options and help, one file for each family of commands. Importing declares."""
