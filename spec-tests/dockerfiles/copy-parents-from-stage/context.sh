mkdir -p a/b c/d
echo f>a/b/f
echo g>c/d/f
chmod 700 a
chmod 711 a/b
