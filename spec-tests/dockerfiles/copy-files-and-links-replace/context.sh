mkdir -p base d
ln -s z base/f
echo x>d/f
echo z>base/z
echo f>base/l
ln -s z d/l
