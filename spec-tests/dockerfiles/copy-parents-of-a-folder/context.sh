mkdir -p a/b
echo f >a/b/f
ln -s a ld
