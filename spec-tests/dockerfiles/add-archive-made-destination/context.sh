echo f>f
tar cf t.tar f
