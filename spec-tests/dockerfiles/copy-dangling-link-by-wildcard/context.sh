echo a >dang1
ln -s nowhere dangle
