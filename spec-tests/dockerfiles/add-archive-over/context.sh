mkdir -p base/a base/keep base/lnkd base/real
echo x>base/f
echo old>base/a/old
ln -s real base/ld
mkdir -p t/a t/ld
echo new>t/f
echo n>t/a/new
echo q>t/ld/q
chmod 700 t/a
(cd t
tar cf ../t.tar a f ld)
