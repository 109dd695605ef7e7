mkdir -p base d
echo f>base/f
echo x>d/x
