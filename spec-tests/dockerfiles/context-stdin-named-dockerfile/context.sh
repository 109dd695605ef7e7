mkdir t
cd t
printf one > a
mkdir d
printf "FROM scratch\nCOPY a /named\n" > d/b
printf "a\n" > .dockerignore
printf "FROM scratch\nCOPY a /\nCOPY d /d\n" > Dockerfile
chmod 640 a
tar --sort=name --owner=7 --group=8 -c Dockerfile .dockerignore a d | cat > ../t.in
cd ..
rm -r t
