mkdir d e
echo x>a
ln a b
ln a d/c
ln a e/f
