mkdir -p base/f d
echo f>base/f/z
ln -s x d/f
