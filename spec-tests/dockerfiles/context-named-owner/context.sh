chown 12:13 other/a
chmod 604 other/a
