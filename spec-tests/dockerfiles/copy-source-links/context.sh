mkdir d
echo f>d/f
ln -s d ldir
ln -s d/f lfile
ln -s /d abs
ln -s f d/inner
ln -s ../../.. up
ln -s nowhere dangle
