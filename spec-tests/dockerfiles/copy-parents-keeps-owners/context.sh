mkdir -p a b/a/c
echo f>a/f
mkdir a/c
echo g>a/c/g
chmod 711 a
