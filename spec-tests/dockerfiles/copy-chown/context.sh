echo a>a
mkdir -p d/s
echo x>d/s/x
ln -s x d/s/l
chown -R 44:55 .
