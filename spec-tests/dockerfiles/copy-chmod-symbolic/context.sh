mkdir -p d/s
echo x>d/s/x
chmod 751 d/s
chmod 640 d/s/x
echo y>d/y
chmod 6754 d/y
mkdir d/t
chmod 3777 d/t
