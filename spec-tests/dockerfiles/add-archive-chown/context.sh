mkdir -p d/s
echo f>d/f
ln -s f d/l
ln d/f d/h
chmod 640 d/f
chmod 2750 d/s
chown -R 7:8 d
tar cf t.tar d
