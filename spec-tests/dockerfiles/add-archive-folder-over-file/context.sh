mkdir -p base
echo x>base/a
mkdir -p t/a
echo new>t/a/n
(cd t
tar cf ../t.tar a)
