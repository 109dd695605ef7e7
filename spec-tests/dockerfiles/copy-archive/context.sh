echo f >f
tar cf t.tar --mtime=@0 f
