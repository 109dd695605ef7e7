echo a>a
mkdir d
echo x>d/x
tar cf a.tar a
