mkdir t
cd t
printf one > a
mkdir d
printf two > d/b
printf "a\n" > .dockerignore
printf "FROM scratch\nCOPY a /\nCOPY d /d\n" > Containerfile
chmod 640 a
tar --sort=name --owner=7 --group=8 -c Containerfile .dockerignore a d | cat > ../t.in
cd ..
rm -r t
