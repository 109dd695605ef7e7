echo a>a
mkdir -p d/s
echo x>d/s/x
ln -s x d/s/l
chmod 640 a
chmod 770 d/s
chmod 750 d/s/x
