mkdir -p d/sub
echo a>a
echo b>b
echo x>d/sub/x
chmod 700 d/sub
chmod 600 d/sub/x
chmod 750 d
chown -R 5:6 d a
mkdir d/empty
chmod 4755 b
