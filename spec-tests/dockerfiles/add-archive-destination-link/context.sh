mkdir -p base/real
ln -s real base/ld
echo x>f
tar cf t.tar f
