mkdir -p base d/f
echo f>base/f
echo x>d/f/x
