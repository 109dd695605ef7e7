mkdir -p base/real d
echo a>a
ln -s real base/lnk
ln -s /real base/abslnk
ln -s real/file base/flnk
echo old>base/real/file
echo e>d/e
ln -s ../../../real base/uplnk
ln -s notthere base/dng
