mkdir -p d/s
echo x>d/s/x
echo a>a
echo b>b
