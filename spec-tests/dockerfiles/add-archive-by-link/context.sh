echo f>f
tar cf t.tar --mtime=@0 f
ln -s t.tar l
mkdir d
cp t.tar d/
