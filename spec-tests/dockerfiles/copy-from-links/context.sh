mkdir d
echo f>d/f
ln -s d ld
ln -s d/f lf
ln -s /d abs
ln -s ../../../d up
ln -s f d/in
ln -s nope d/dang
