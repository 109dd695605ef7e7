mkdir base
mkdir t
chmod 711 t
echo a>t/a
(cd t
tar cf ../t.tar .)
