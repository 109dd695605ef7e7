mkdir -p a b/a
echo f>a/f
chmod 700 a
chmod 755 b/a
chown 3:3 b/a
