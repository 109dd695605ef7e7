mkdir -p a/b c/d a/b/deep/er
echo f>a/b/f
echo g>c/d/g
echo 0 >f0
chmod 700 a
chmod 711 a/b
chown 7:8 a
echo ff>a/b/deep/er/f
mkdir a/empty
chmod 2775 c
ln -s a ld
ln -s f a/b/lf
ln -s ../c a/lc
ln -s nope a/dang
