mkdir -p base/real d/lnk
ln -s real base/lnk
echo g>d/lnk/g
