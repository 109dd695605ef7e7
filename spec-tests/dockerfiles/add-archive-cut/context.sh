head -c 30000 /dev/zero >f
tar cf t.tar f
truncate -s 10000 t.tar
