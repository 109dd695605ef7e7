mkdir -p base/a
echo x>base/a/old
mkdir -p t
echo new>t/a
(cd t
tar cf ../t.tar a)
