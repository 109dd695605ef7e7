//! The command line: arguments, settings, one file a command, progress, failures and exit codes.
