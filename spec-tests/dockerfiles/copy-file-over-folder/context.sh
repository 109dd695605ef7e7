mkdir -p base/f d
echo f>base/f/z
echo x>d/f
