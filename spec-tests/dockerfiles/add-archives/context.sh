mkdir -p d/s
echo f>d/f
ln -s f d/l
ln d/f d/h
chmod 640 d/f
chmod 2750 d/s
chown -R 7:8 d
tar cf t.tar --mtime=@0 --sort=name d
gzip -nc t.tar>t.tgz
bzip2 -c t.tar >t.bz2
xz -c t.tar>t.xz
zstd -q -c t.tar>t.zst
cp t.tgz odd
echo hi>t.txt
echo hi|gzip -n>text.gz
printf '\004\042\115\030aaaaaaaa'>t.lz4
tar cf emptytar -T /dev/null
printf ''|gzip -n>empty.gz
