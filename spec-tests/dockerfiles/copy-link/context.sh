mkdir -p base/real d
echo a>a
ln -s real base/lnk
echo e>d/e
