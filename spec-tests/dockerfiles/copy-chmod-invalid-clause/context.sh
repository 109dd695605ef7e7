mkdir -p d/s
echo x>d/s/x;
